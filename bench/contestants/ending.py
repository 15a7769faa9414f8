"""How a contestant in Python begins and ends: says that it is ready, and at SIGTERM what it has done."""

from __future__ import annotations

import json
import resource
import signal
import sys
from types import FrameType
from typing import Any


class Ended(Exception):
    """SIGTERM."""


def end_on_sigterm() -> None:
    """From now on SIGTERM raises Ended, in the main thread, wherever that is."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Ended


def say_ready() -> None:
    """From now on packets are taken."""
    print("ready", flush=True)  # noqa: T201 -- for whoever started this


def report(verdicts: int, **more: Any) -> None:
    """The last line: packets answered, CPU time (user and system, of all threads, in seconds), and the rest."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    json.dump({"verdicts": verdicts, "cpu_s": used.ru_utime + used.ru_stime, **more}, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
