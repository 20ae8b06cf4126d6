"""WebKit in the place of Chromium: the client, the live map and the desk."""

import pytest
from checked.suite import run_again
from checked.tool import Tool

TOOL = Tool(
    "WebKit",
    "the client and the pages",
    pypi=("selenium",),
    debian=("webkit2gtk-driver", "xvfb"),
    commands=("WebKitWebDriver", "Xvfb"),
)
pytestmark = [pytest.mark.checked, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize(
    ("paths", "least"),
    [
        (("tests/client_demo/web/test_browser.py",), 2),
        (("tests/pages/map/test_alerts.py",), 12),
        (("tests/pages/desk/test_page.py", "tests/pages/desk/test_approving.py"), 10),
    ],
    ids=["client", "map", "desk"],
)
def test_pages_work_in_webkit_as_in_chromium(record_property, tmp_path, paths, least):
    """WebDriver drives WebKit (tests/support/webkit.py)."""
    run_again(record_property, tmp_path / "report.xml", *paths, least=least, TEST_BROWSER="webkit")
