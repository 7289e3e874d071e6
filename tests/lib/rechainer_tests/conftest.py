import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def python(tmp_path):
    """Run code, or an argument list, in a fresh Python; return the finished process."""

    def run(code=None, *arguments, status=0):
        command = ["-c", textwrap.dedent(code)] if code else map(str, arguments)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run
