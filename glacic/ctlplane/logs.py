"""How the service logs: one line per event on stderr, JSON off a terminal and readable on one (structlog)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

# structlog imports rich where that is installed, for tracebacks in colours: 4 MB in each process, and we print none.
_hides_rich = "rich" not in sys.modules
if _hides_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what an import finds missing

import structlog  # noqa: E402 - see above

if _hides_rich:
    del sys.modules["rich"]

_json: structlog.PrintLogger | None = None  # where finished lines go, once configure() has found that they are JSON


def configure() -> None:
    """Set structlog up for this process. Control characters never reach the terminal: values are shown by repr."""
    global _json  # noqa: PLW0603 - set once, like structlog's own configuration
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _json = None if terminal else structlog.PrintLogger(sys.stderr)


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
