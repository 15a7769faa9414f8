"""What systemd is told, on a datagram socket of our own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from glacic.ctlplane import sdnotify


def test_nobody_is_told_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sdnotify.notify("READY=1")


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_gets_the_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    name = f"@glacic-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert sdnotify.notify("READY=1", "STATUS=in force")
        assert manager.recv(4096) == b"READY=1\nSTATUS=in force"


def test_a_manager_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not sdnotify.notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval_s"),
    [("", None, None), ("0", None, None), ("junk", None, None), ("30000000", None, 15.0), ("30000000", "1", None)],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, interval_s: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert sdnotify.watchdog_interval_s() == interval_s
