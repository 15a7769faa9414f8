"""Where a person sits: what their command says, marked as said, and what /proc says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glacic.ctlplane import origin

SSH = "192.0.2.1 50000 192.0.2.2 22"


def process(proc: Path, pid: int, parent: int, environ: bytes = b"") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "environ").write_bytes(environ)
    (folder / "stat").write_text(f"{pid} (a) b) S {parent} 0 0")


def test_ones_own_environment_comes_first(tmp_path: Path) -> None:
    assert origin.ssh_connection({"SSH_CONNECTION": SSH}, tmp_path) == SSH


def test_what_sudo_took_away_is_found_with_an_ancestor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = 4_000_000
    monkeypatch.setattr(origin.os, "getppid", lambda: parent)  # of a test in the background it is 1, the last there is
    process(tmp_path, parent, 4_000_001, b"HOME=/root\0")
    process(tmp_path, 4_000_001, 1, b"A=b\0SSH_CONNECTION=" + SSH.encode() + b"\0")
    assert origin.ssh_connection({}, tmp_path) == SSH


@pytest.mark.parametrize("text", ["\x1b[2J", "1 2 3 4\n5", "x" * 100_000, "192.0.2.1 50000"])
def test_what_is_no_ssh_connection_is_none(tmp_path: Path, text: str) -> None:
    assert origin.ssh_connection({"SSH_CONNECTION": text}, tmp_path) == ""
    process(tmp_path, os.getppid(), 1, b"SSH_CONNECTION=" + text.encode())
    assert origin.ssh_connection({}, tmp_path) == ""


def test_without_proc_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert origin.ssh_connection({}, tmp_path) == ""
    assert origin.found_of(4_000_001, "", tmp_path) == ""


def test_login_and_unit_are_found_and_hearsay_is_marked(tmp_path: Path) -> None:
    process(tmp_path, 7, 1)
    (tmp_path / "7" / "loginuid").write_text("1000")
    (tmp_path / "7" / "cgroup").write_text("1:cpu:/x\n0::/user.slice/session-3.scope\n")
    said = origin.found_of(7, "tty pts/0\x1b]0;x\x07", tmp_path)
    assert said == "tty pts/0\\x1b]0;x\\x07 (told); login uid 1000; cgroup user.slice/session-3.scope"


def test_nobody_logged_in_is_said_by_saying_nothing(tmp_path: Path) -> None:
    process(tmp_path, 7, 1)
    (tmp_path / "7" / "loginuid").write_text("4294967295")
    (tmp_path / "7" / "cgroup").write_text("0::/\n")
    assert origin.found_of(7, "", tmp_path) == ""


def test_it_is_bounded(tmp_path: Path) -> None:
    process(tmp_path, 7, 1)
    (tmp_path / "7" / "cgroup").write_text("0::/" + "\u202e" * 10_000)
    assert len(origin.found_of(7, "\x1b" * 10_000, tmp_path)) <= origin.MAX_SOURCE


def test_this_command_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", SSH)
    assert origin.told().startswith(f"ssh {SSH}")
