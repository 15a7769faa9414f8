"""How the service logs: one line per event on stderr, JSON off a terminal and readable on one (structlog)."""

from __future__ import annotations

import sys
from typing import Any

import structlog


def configure() -> None:
    """Set structlog up for this process. Control characters never reach the terminal: values are shown by repr."""
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


def logger(part: str) -> Any:
    """A logger whose lines say which part of the service speaks."""
    return structlog.get_logger(part=part)
