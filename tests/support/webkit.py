"""WebKit, driven by WebDriver through the part of Playwright's interface that the page tests use.

Playwright drives only its own builds of WebKit, and WebDriver reaches the one that Debian ships:

    page = WebKit(":1").new_context(viewport={"width": 1280, "height": 800}).new_page()

A test that asks for something that WebDriver does not have is skipped. WebDriver does not report what a page logs, so
after it has loaded, the page collects its own errors; `Page.close` hands them to the handlers of "pageerror".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.kit.times import wait_until

DRIVER = "WebKitWebDriver"
ANSWER_S = 90  # more than any command of a test takes
KEYS = {
    "Control": "\ue009",
    "Shift": "\ue008",
    "Alt": "\ue00a",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
} | {
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "Space": " ",
}
COLLECT = """
window.webkitTroubles ??= [];
addEventListener("error", ({ message }) => webkitTroubles.push(message));
addEventListener("unhandledrejection", ({ reason }) => webkitTroubles.push(String(reason)));
"""


class WebKit:
    """A browser: each context is a WebKit of its own, on one screen that nobody sees."""

    def __init__(self, display: str) -> None:
        """Run on this display (support/screen.py)."""
        self._display = display
        self._home = tempfile.mkdtemp(prefix="geocast-webkit-")

    def close(self) -> None:
        """Remove the browser's files."""
        shutil.rmtree(self._home, ignore_errors=True)

    def new_context(self, **options: Any) -> Context:
        """Start a WebKit. Only the option `viewport` is known."""
        viewport = options.pop("viewport", {"width": 1280, "height": 800})
        if options:
            pytest.skip(f"WebDriver for WebKit can't set {', '.join(options)}")
        environment = {
            **os.environ,
            "DISPLAY": self._display,
            "HOME": self._home,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # in a container there is none
        }
        return Context(environment, viewport)

    def new_page(self) -> Page:
        """Start a WebKit, and return its page."""
        return self.new_context().new_page()


class Context:
    """A WebKit with one page."""

    def __init__(self, environment: dict[str, str], viewport: dict[str, int]) -> None:
        self._driver = _started(environment, attempts=2)
        self._page = Page(self._driver)
        self._page.set_viewport_size(viewport)

    def set_default_timeout(self, milliseconds: float) -> None:
        """Set how long a script may take."""
        self._driver.set_script_timeout(milliseconds / 1000)

    def new_page(self) -> Page:
        """Return the page."""
        return self._page

    def close(self) -> None:
        """Close the page and WebKit."""
        self._page.close()

    def __getattr__(self, name: str) -> Any:
        return _unknown(name)


def _started(environment: dict[str, str], attempts: int) -> Any:
    """Start a WebKit. Its driver rarely leaves the first request without an answer; then start another one."""
    from selenium.webdriver import WebKitGTK, WebKitGTKOptions
    from selenium.webdriver.webkitgtk.service import Service
    from urllib3.exceptions import HTTPError

    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about selenium's own calls
            return WebKitGTK(WebKitGTKOptions(), Service(shutil.which(DRIVER), env=environment))
    except HTTPError:
        if attempts == 1:
            raise
        return _started(environment, attempts - 1)
    finally:
        socket.setdefaulttimeout(usual)


class Page:
    """The page, with methods like those of a Playwright page."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._script = ""
        self._is_closed = False
        self._on_error: list[Callable[[str], object]] = []
        self.keyboard, self.mouse = Keyboard(driver), Mouse(driver)

    def __getattr__(self, name: str) -> Any:
        return _unknown(name)

    def add_init_script(self, script: str) -> None:
        """Run a script in each page, once it has loaded; WebDriver can't do that before."""
        self._script = script

    def on(self, event: str, handler: Callable[[Any], object]) -> None:
        """Call the handler with each uncaught error, when the page is closed. There are no other events."""
        if event == "pageerror":
            self._on_error.append(handler)
        elif event not in ("console", "response"):
            _unknown(f"the event {event}")

    def goto(self, url: str) -> Skips:
        """Load a page."""
        self._report()
        self._driver.get(url)
        self._begin()
        return Skips("the answer's headers")

    def reload(self) -> None:
        """Load the page again."""
        self._report()
        self._driver.refresh()
        self._begin()

    def _begin(self) -> None:
        self._driver.execute_script(COLLECT + self._script)

    def _report(self) -> None:
        for trouble in self._driver.execute_script("return window.webkitTroubles ?? []"):
            for handler in self._on_error:
                handler(trouble)

    def close(self) -> None:
        """Report the errors of the page, and close WebKit."""
        if not self._is_closed:
            self._is_closed = True
            self._report()
            self._driver.quit()

    def title(self) -> str:
        """Return the title."""
        return str(self._driver.title)

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self._driver.current_url)

    def evaluate(self, expression: str, arg: Any = None) -> Any:
        """Return the value of an expression, or of the function that it is."""
        return self._driver.execute_script(
            f"const made = ({expression.strip().rstrip(';')});"
            "return typeof made === 'function' ? made(...arguments) : made;",
            arg,
        )

    def wait_for_function(self, expression: str, arg: Any = None) -> None:
        """Wait until an expression, or the function that it is, is true."""
        wait_until(lambda: self.evaluate(expression, arg), expression)

    def set_viewport_size(self, size: dict[str, int]) -> None:
        """Resize the window until the page has this size."""
        wide, high = self.evaluate("[outerWidth - innerWidth, outerHeight - innerHeight]")
        self._driver.set_window_size(size["width"] + wide, size["height"] + high)

    def screenshot(self, path: Any = None, **_: Any) -> bytes:
        """Return a picture of the page, and save it if a path is given."""
        picture: bytes = self._driver.get_screenshot_as_png()
        if path:
            path.write_bytes(picture)
        return picture

    def locator(self, selector: str, has_text: str = "") -> Locator:
        """Return the elements that match a selector and contain a text."""
        return Locator(self._driver, selector, has_text)

    def get_by_role(self, role: str, name: str = "", exact: bool = False) -> Locator:
        """Return the buttons or links with this name."""
        if role not in ("button", "link"):
            _unknown(f"role {role}")
        return Locator(self._driver, {"button": "button", "link": "a"}[role], name, exact=exact)

    def click(self, selector: str) -> None:
        """Click an element."""
        self.locator(selector).click()

    def dblclick(self, selector: str) -> None:
        """Click an element twice."""
        from selenium.webdriver import ActionChains

        ActionChains(self._driver, duration=0).double_click(self.locator(selector).one()).perform()

    def is_visible(self, selector: str) -> bool:
        """Return whether an element is there and shown."""
        return self.locator(selector).is_visible()

    @contextlib.contextmanager
    def expect_navigation(self) -> Iterator[None]:
        """Wait at the end of the block until another document has replaced the page's."""
        started = self.evaluate("performance.timeOrigin")
        yield
        wait_until(lambda: self.evaluate("performance.timeOrigin") != started, "the page has changed")

    def check(self, selector: str) -> None:
        """Tick a box."""
        self.locator(selector).check()

    def focus(self, selector: str) -> None:
        """Focus an element."""
        self.locator(selector).focus()

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field, once it is shown."""
        wait_until(self.locator(selector).is_visible, f"{selector} is shown")
        element = self.locator(selector).one()
        element.clear()
        element.send_keys(text)

    def input_value(self, selector: str) -> str:
        """Return the text of a field."""
        return str(self.locator(selector).evaluate("field => field.value"))

    def get_attribute(self, selector: str, name: str) -> str | None:
        """Return an attribute of an element."""
        return self.locator(selector).get_attribute(name)

    def select_option(self, selector: str, value: str) -> None:
        """Choose an option of a list."""
        from selenium.webdriver.support.select import Select

        Select(self.locator(selector).one()).select_by_value(value)


class Locator:
    """The elements that match a selector at the time at which they are used."""

    def __init__(
        self,
        driver: Any,
        selector: str,
        text: str = "",
        *,
        exact: bool = False,
        nth: int | None = None,
        within: Locator | None = None,
    ) -> None:
        self._driver, self._selector, self._text, self._exact, self._nth = driver, selector, text, exact, nth
        self._within = within

    def __getattr__(self, name: str) -> Any:
        return _unknown(name)

    def _all(self) -> list[Any]:
        from selenium.common.exceptions import InvalidSelectorException

        outer = self._within._all() if self._within else [self._driver]
        try:
            found = [each for element in outer for each in element.find_elements("css selector", self._selector)]
        except InvalidSelectorException:
            pytest.skip(f"{self._selector} is no CSS selector")
        if self._text:
            texts = [" ".join(str(each.get_property("textContent")).split()) for each in found]
            found = [
                each
                for each, text in zip(found, texts, strict=True)
                if (text == self._text if self._exact else self._text in text)
            ]
        return found if self._nth is None else found[self._nth :][:1]

    def one(self) -> Any:
        """Wait until there is an element, and return the first."""
        return wait_until(self._all, f"{self._selector} is there")[0]

    @property
    def first(self) -> Locator:
        """The first of the elements."""
        return Locator(self._driver, self._selector, self._text, exact=self._exact, nth=0, within=self._within)

    def locator(self, selector: str) -> Locator:
        """Return the elements within these that match a selector."""
        return Locator(self._driver, selector, within=self)

    def all_inner_texts(self) -> list[str]:
        """Return the visible text of each element."""
        return [str(each.get_property("innerText")) for each in self._all()]

    def count(self) -> int:
        """Return the number of elements."""
        return len(self._all())

    def inner_text(self) -> str:
        """Return the visible text."""
        return str(self.evaluate("element => element.innerText"))

    def evaluate(self, function: str) -> Any:
        """Return the value of a function of the element."""
        return self._driver.execute_script(f"return ({function})(arguments[0])", self.one())

    def get_attribute(self, name: str) -> str | None:
        """Return an attribute."""
        value: str | None = self.one().get_dom_attribute(name)
        return value

    def is_visible(self) -> bool:
        """Return whether the element is there and shown."""
        return any(each.is_displayed() for each in self._all())

    def is_hidden(self) -> bool:
        """Return whether the element is not shown."""
        return not self.is_visible()

    def is_disabled(self) -> bool:
        """Return whether a control is disabled."""
        return not self.one().is_enabled()

    def wait_for(self, state: str) -> None:
        """Wait until the element is `visible` or `hidden`."""
        wait_until(lambda: self.is_visible() == (state == "visible"), f"{self._selector} is {state}")

    def click(self) -> None:
        """Click the element, once it can be."""
        from selenium.common.exceptions import WebDriverException

        def is_clicked() -> bool:
            try:
                self.one().click()
            except WebDriverException:
                return False
            return True

        wait_until(is_clicked, f"{self._selector} can be clicked")

    def check(self) -> None:
        """Tick a box."""
        if not self.one().is_selected():
            self.click()

    def focus(self) -> None:
        """Focus the element."""
        self.evaluate("element => element.focus()")

    def scroll_into_view_if_needed(self) -> None:
        """Scroll until the element is seen."""
        self.evaluate("element => element.scrollIntoView({ block: 'nearest' })")

    def hover(self, **_: Any) -> None:
        """Move the mouse over the element."""
        from selenium.webdriver import ActionChains

        ActionChains(self._driver).move_to_element(self.one()).perform()

    def bounding_box(self) -> dict[str, float] | None:
        """Return the element's box on the screen."""
        box: dict[str, float] | None = self.evaluate(
            "e => { const { x, y, width, height } = e.getBoundingClientRect(); return { x, y, width, height }; }"
        )
        return box


class Keyboard:
    """The keyboard."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def press(self, keys: str) -> None:
        """Press a key, with those that are held: `Shift+ArrowLeft`."""
        from selenium.webdriver import ActionChains

        *held, key = (KEYS.get(each, each) for each in keys.split("+"))
        actions = ActionChains(self._driver, duration=0)
        for each in held:
            actions.key_down(each)
        actions.send_keys(key)
        for each in held:
            actions.key_up(each)
        actions.perform()

    def type(self, text: str) -> None:
        """Type a text."""
        from selenium.webdriver import ActionChains

        ActionChains(self._driver, duration=0).send_keys(text).perform()


class Mouse:
    """The mouse."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._at = (0.0, 0.0)

    def _act(self, add: Callable[[Any], object]) -> None:
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self._driver, duration=0)
        add(actions.pointer_action)
        actions.perform()

    def move(self, x: float, y: float, steps: int = 1) -> None:
        """Move the mouse in a straight line."""
        from_x, from_y = self._at
        for step in range(1, steps + 1):
            to = (round(from_x + (x - from_x) * step / steps), round(from_y + (y - from_y) * step / steps))
            self._act(lambda pointer, to=to: pointer.move_to_location(*to))  # type: ignore[misc]
        self._at = (x, y)

    def down(self) -> None:
        """Press the button."""
        self._act(lambda pointer: pointer.pointer_down())

    def up(self) -> None:
        """Release the button."""
        self._act(lambda pointer: pointer.pointer_up())


class Skips:
    """Something that only Playwright has: a test that looks into it is skipped."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        return _unknown(self._what)


def _unknown(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    pytest.skip(f"WebDriver for WebKit has no {name}")
