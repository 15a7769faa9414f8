"""The lab, ending: what makes sure that nothing the lab started outlives it.

A `with` block cleans up when its body raises. Ctrl-C raises KeyboardInterrupt, but SIGTERM and SIGHUP end a Python
process on the spot, with no `finally` run. `ends_cleanly` makes them raise as well, for as long as its block lasts.
Nothing helps against SIGKILL: what it leaves behind is named after the dead process, and `net.sweep` removes it the
next time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

_RAISING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ends_cleanly() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into SystemExit(128 + number) inside the block.

    Handlers that somebody else has set stay (that program has its own way to end), and so does everything in a thread
    that is not the main one: Python hands signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _RAISING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def end_process(process: subprocess.Popen[bytes], *, patience_s: float) -> int:
    """Asks a child to end (SIGTERM, and SIGCONT for a stopped one), then kills it. Returns its exit status."""
    if process.poll() is None:
        process.terminate()
        process.send_signal(signal.SIGCONT)
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def end_group(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """Ends a child that leads a process group of its own, with all of that group, such as a wrapper's child.

    The leader is given time. What it leaves in its group is not: orphans have nobody to tell how they ended.
    """
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def kill(pids: Iterable[int]) -> None:
    """SIGKILL for each of these, except for this very process; one that is gone already is fine."""
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def owner_is_dead(name: str) -> bool:
    """Whether a name that begins with a process number and "-" was given by a process that is no more."""
    owner, dash, _ = name.partition("-")
    return bool(dash) and owner.isdecimal() and not Path("/proc", owner).exists()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
