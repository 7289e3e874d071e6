"""Every page that may run in the reader's browser runs there, and shows what it stores."""

import pytest
from conftest import at_home, needs_python
from live_pages import KEPT, live_notebooks, row, run_notebook, values, worker

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    needs_python,
]


@pytest.fixture(scope="module")
def reader(browser, site):
    """The browser of somebody who goes from page to page: what one has compiled serves the next."""
    with at_home(browser, site) as context:
        with worker(browser, site, context) as live:
            live.outputs("from convnets import figures, models, widgets")
            live.page.evaluate(KEPT)
        yield context


@pytest.mark.parametrize("path", live_notebooks(), ids=lambda it: f"{it.parent.name}-{it.stem}")
def test_page(browser, site, reader, path):
    result = run_notebook(browser, site, path, reader)
    print(row(values(result)))
    assert not result.problems, "\n".join(result.problems)
