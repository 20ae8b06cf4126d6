"""The format of the log messages that a process writes to standard error: lines of text, or of JSON.

With JSON every line is an object. That includes the messages of geocast and of libraries, Python's warnings, and
unexpected errors.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..model.errors import ConfigError, trace

FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger("geocast")


@contextlib.contextmanager
def kept(level: str, form: str) -> Iterator[None]:
    """Write log messages of this level and above to standard error while the `with` block runs.

    `form` is "text" or "json". With JSON, an exception that ends the block is written as a log message too. The process
    then exits with status 2 after a ConfigError or an OSError, and with 1 after any other exception.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_TEXT) if form == "text" else _json())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for library in ("uvicorn", "httpcore"):  # at lower levels they log requests
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
    if form == "text":
        yield
        return
    logging.captureWarnings(capture=True)
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _unraisable
    try:
        yield
    except (ConfigError, OSError) as error:
        for problem in error.problems if isinstance(error, ConfigError) else (error,):
            logger.critical("%s", problem)
        sys.exit(2)
    except Exception as error:
        logger.critical("the process ends because of an unexpected error", exc_info=error)
        sys.exit(1)


def _json() -> logging.Formatter:
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    from ..model.times import format_time

    class _Lines(JsonFormatter):
        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
            return format_time(int(record.created * 1000))

        def formatException(self, ei: Any) -> str:  # noqa: N802
            return trace(ei[1])  # omits the text of the exception, which may repeat a client's data

    return _Lines(
        ["asctime", "levelname", "name", "process", "message"],
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "name": "logger",
            "process": "pid",
            "exc_info": "exception",
            "stack_info": "stack",
        },
        # Libraries add these fields to their log records: a connection, and the message in colours.
        reserved_attrs=[*RESERVED_ATTRS, "websocket", "color_message"],
    )


def _of_a_thread(raised: threading.ExceptHookArgs) -> None:
    logger.error("a thread ended because of an unexpected error", exc_info=raised.exc_value)


def _unraisable(raised: "sys.UnraisableHookArgs") -> None:
    logger.error("%s", raised.err_msg or "Python had to ignore an exception", exc_info=raised.exc_value)
