"""The engine process: queue and log readers, the engine, the store's writer, the kernel's learned sets. Child of
service.py.

One thread per queue and log group; one writes the database (learning/writer.py), one changes the kernel's sets
(mapper.py), one logs (journal.py), one reads counters and forgets old flows (upkeep.py), and this one obeys the
parent. A thread that ends where it should run ends the process: the parent starts a new one. Messages are those of
protocol.py with an `id`.

The process dies with its parent (PR_SET_PDEATHSIG), so that a dead service always means "no listener".
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from glacic.ctlplane import logs, protocol, sandbox
from glacic.ctlplane.rescue import EXIT_DAMAGED
from glacic.ctlplane.settings import from_message
from glacic.ctlplane.workshop import Workshop
from glacic.errors import GlacicError, UsageError

_log = logs.logger("worker")

BEAT_S = 0.5
SWITCH_S = 0.0002  # how long a packet thread waits for the interpreter while another one computes (Python's own: 5 ms)
NICE = -10  # a packet is held: whoever lists flows or parses a configuration on this machine can wait for its verdict
GARBAGE = 50_000  # containers made before Python looks for cycles: there are next to none here, and looking takes time
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> int:
    """Started by spawn.py with FD and PARENT: serve the socket FD until the parent says stop or goes away. Its first
    line names the database's folder (child.py)."""
    descriptor, parent = map(int, arguments)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        return 1
    with contextlib.suppress(PermissionError):  # it takes CAP_SYS_NICE, or a unit's LimitNICE=
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(GARBAGE, 20, 100)
    logs.configure()
    with socket.socket(fileno=descriptor) as link, link.makefile("rb") as lines:
        first = lines.readline()
        if not first:  # the parent needed no worker after all
            return 0
        folder = protocol.unpack(first)["folder"]
        confined = sandbox.enter(Path(folder) if folder is not None else None)
        if not confined.landlock:
            _log.warning("the worker may touch files: this kernel has no Landlock", reason=confined.reason)
        return Worker(link).run(lines)


class Worker:
    """The parent's socket: takes requests one after the other, beats while every thread is alive."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._workshop = Workshop()
        self._requests: dict[str, Callable[..., Any]] = {
            "prepare": self._prepare,
            "commit": self._workshop.commit,
            "abort": self._workshop.abort,
            "stats": self._workshop.stats,
            "sync": self._workshop.sync,
            "set_state": self._workshop.set_state,
            "learn": self._workshop.learn,
            "learned_differ": self._workshop.learned_differ,
            "mend_learned": self._workshop.mend_learned,
            "stop": self._stop,
        }

    def run(self, lines: BinaryIO) -> int:
        """Until told to stop, or until the parent's end of the socket is closed."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while not self._stopped.is_set() and (line := lines.readline()):
            self._send(self._answer(protocol.unpack(line)))
        if not self._stopped.is_set():
            self._workshop.close()
        return 0

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = protocol.answer(self._find(message["do"])(**message["args"]))
        except GlacicError as error:
            answer = protocol.refusal(error)
        except Exception as error:  # the top loop: the parent decides whether this worker can go on
            _log.exception("request failed", request=str(message.get("do")))
            answer = protocol.refusal(GlacicError(f"internal error in the worker: {error!r}; the log has more"))
        return {"id": message["id"], **answer}

    def _find(self, do: str) -> Callable[..., Any]:
        request = self._requests.get(do)
        if request is None:
            raise UsageError(f"no such request: {do}")
        return request

    def _prepare(self, settings: dict[str, Any], save_numbers: bool) -> dict[str, Any]:
        return self._workshop.prepare(from_message(settings), save_numbers)

    def _stop(self) -> None:
        self._workshop.close()
        self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_S):
            dead = self._workshop.dead_threads()
            if dead:
                _log.error("threads ended, so this worker ends", threads=dead)
                os._exit(1)
            if self._workshop.damaged():
                _log.error("the flow database is damaged, so this worker ends: the next one finds it recovered")
                os._exit(EXIT_DAMAGED)
            told = {"learning": self._workshop.learning_on(), "trouble": self._workshop.trouble()}
            self._send({"event": "heartbeat", **told})

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            try:
                self._link.sendall(protocol.pack(message))
            except OSError:
                self._stopped.set()  # the parent is gone; the kernel ends this process, or readline() returns
