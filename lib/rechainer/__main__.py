"""``python -m rechainer script.py``: see `rechainer._runner`."""

import sys

from rechainer._runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
