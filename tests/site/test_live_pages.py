"""Every page that may run in the reader's browser runs there, and shows what it stores."""

import pytest
from conftest import needs_python
from live_pages import live_notebooks, row, run_notebook, values

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    needs_python,
]


@pytest.mark.parametrize("path", live_notebooks(), ids=lambda it: f"{it.parent.name}-{it.stem}")
def test_page(browser, site, first, path):
    """For somebody who goes from page to page."""
    result = run_notebook(browser, site, path, first.page.context)
    print(row(values(result)))
    assert not result.problems, "\n".join(result.problems)
