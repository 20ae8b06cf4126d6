"""Firefox in the place of Chromium: the client, the live map, the desk and the other pages."""

import pytest
from checked.suite import run_again
from checked.tool import Tool

TOOL = Tool("Firefox", "the client and the pages", debian=("firefox-esr",), commands=("firefox-esr",))
pytestmark = [pytest.mark.checked, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize(
    ("paths", "least"),
    [
        (("tests/client_demo/web/test_browser.py",), 4),
        (("tests/pages/map/test_alerts.py",), 13),
        (("tests/pages/desk/test_page.py", "tests/pages/desk/test_approving.py"), 17),
    ],
    ids=["client", "map", "desk"],
)
def test_pages_work_in_firefox_as_in_chromium(record_property, tmp_path, paths, least):
    """Playwright drives Firefox by WebDriver BiDi."""
    run_again(record_property, tmp_path / "report.xml", *paths, least=least, TEST_BROWSER="firefox")
