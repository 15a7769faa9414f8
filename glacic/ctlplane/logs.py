"""How the service logs: one line per event on stderr, JSON off a terminal and readable on one (structlog).

Everything that is logged passes harmless(): no text reaches the line that could move a cursor, hide text or go on
without end, whoever wrote it. What libraries log, and what ends a thread, comes out the same way. Only the stack of a
fault of ours takes more than one line, and only on a terminal.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, MutableMapping
from typing import Any

from glacic.config.source import printable

MAX_NAME = 100  # characters of a field's name
MAX_ITEMS = 50  # of a list or an object in a field
MAX_LEVELS = 4
MAX_STACK = 30  # lines of a stack from either end

# structlog imports rich where that is installed, for tracebacks in colours: 4 MB in each process, and we print none.
_hides_rich = "rich" not in sys.modules
if _hides_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what an import finds missing

import structlog  # noqa: E402 - see above

if _hides_rich:
    del sys.modules["rich"]

_json: structlog.PrintLogger | None = None  # where finished lines go, once configure() has found that they are JSON


def configure() -> None:
    """Set structlog up for this process, and have everything else that would write to stderr by itself go through
    it."""
    global _json  # noqa: PLW0603 - set once, like structlog's own configuration
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            harmless,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _json = None if terminal else structlog.PrintLogger(sys.stderr)
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = lambda *found: logger("python").critical("ended by a fault", exc_info=found)
    threading.excepthook = lambda args: logger("python").critical(
        "a thread ended by a fault",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: every text of the event printable and bounded, in whatever it is wrapped."""
    stack = event.pop("exception", None)
    for name in list(event):
        event[printable(name, MAX_NAME)] = _harmless(event.pop(name), MAX_LEVELS)
    if stack is not None:
        lines = str(stack).split("\n")
        event["exception"] = "\n".join(map(printable, lines[:MAX_STACK] + lines[MAX_STACK:][-MAX_STACK:]))
    return event


def _harmless(value: Any, levels: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if levels and isinstance(value, dict):
        shown = list(value.items())[:MAX_ITEMS]
        return {printable(str(name), MAX_NAME): _harmless(inner, levels - 1) for name, inner in shown}
    if levels and isinstance(value, list | tuple):
        return [_harmless(inner, levels - 1) for inner in value[:MAX_ITEMS]]
    return printable(str(value))


class _Forward(logging.Handler):
    """What libraries log, asyncio among them."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger(record.name), level)(record.getMessage(), exc_info=record.exc_info)


def logger(part: str) -> Any:
    """A logger whose lines say which part of the service speaks."""
    return structlog.get_logger(part=part)


def takes_json() -> bool:
    """Whether this process logs JSON, and write_lines takes finished lines."""
    return _json is not None


def write_lines(lines: Iterable[str]) -> None:
    """Write finished lines as they are, in one piece, never in the midst of somebody else's."""
    text = "\n".join(lines)
    if _json is not None and text:
        _json.msg(text)
