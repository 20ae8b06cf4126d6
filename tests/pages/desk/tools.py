"""Steps of a reviewer on the desk's page, and checks of a subscriber's messages."""

from collections.abc import Callable
from typing import Any

from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from pages.conftest import BROWSER, Shown

Show = Callable[..., Shown]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>Structure</b> \u202efire"


def opened(shown: Shown, name: str) -> Shown:
    """Open the incident with this text and wait for its preview."""
    shown.page.locator(".item", has_text=name).first.click()
    shown.has("#title", name)
    return shown


def may_approve(shown: Shown) -> None:
    """Wait until the preview shows that the node would accept the form."""
    shown.until("!document.querySelector('#approve').disabled", "the button can be pressed")


def may_not_approve(shown: Shown) -> None:
    """Assert that neither the button nor the shortcut approves the form."""
    shown.page.keyboard.press("Control+Enter")
    assert shown.page.locator("#approve").is_disabled() or shown.page.locator("#approve").is_hidden()


def heard(phone: Session, revision: int | str) -> dict[str, Any]:
    """Return the subscriber's next message, which must have this revision."""
    message = phone.take()
    assert message["type"] == ("cancel" if revision == "cancel" else "alert")
    found = message.get("alert", message)
    assert revision in ("cancel", found["revision"])
    return found


def was_meant(shown: Shown, trouble: str) -> None:
    """Wait until the browser has logged an error that the test caused, and remove the error.

    Only Chromium logs each failed request. Firefox reports a refused one as a response; WebKit's driver reports none.
    """
    sign = "error:" if BROWSER == "chromium" else ""
    if BROWSER == "chromium" or (BROWSER == "firefox" and trouble.isdigit()):
        wait_until(
            lambda: shown.page.evaluate("1") and any(sign in each and trouble in each for each in shown.troubles),
            f"{trouble} on the console",
        )
    shown.troubles[:] = [each for each in shown.troubles if trouble not in each]
