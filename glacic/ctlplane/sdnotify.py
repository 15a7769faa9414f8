"""Tells systemd how the service is doing, by the datagrams of sd_notify(3). Without NOTIFY_SOCKET it tells nobody."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from glacic.config.source import printable


def notify(*lines: str) -> bool:
    """Send assignments such as "READY=1" or "STATUS=...". False where no manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket: unix(7) writes its leading NUL as @
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto("\n".join(printable(line) for line in lines).encode(), address)
        except OSError:
            return False  # a manager that went away is no reason to stop filtering
    return True


@contextmanager
def reloading() -> Iterator[None]:
    """The manager knows of a reload as long as it lasts (systemd.service(5), Type=notify-reload)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


def watchdog_interval_s() -> float | None:
    """How often to send WATCHDOG=1: half of what the manager allows (sd_watchdog_enabled(3)); None where it does not
    ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdigit() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


async def feed_watchdog(interval_s: float) -> None:
    """As often as the manager wants to hear of us, for as long as the event loop turns."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
