"""The audit trail: what is done is on it, what is taken from it shows, and it never grows without end."""

from __future__ import annotations

import gzip
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from glacic.ctlplane import audit
from glacic.ctlplane.audit import AuditTrail
from glacic.errors import AuditError


def write(trail: AuditTrail, count: int = 1, **parts: Any) -> None:
    for number in range(count):
        entry = {"who": "user bob", "action": "reload", "args": {"n": number}, "outcome": "ok"}
        trail.append(**{**entry, **parts})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.log"


def problems(path: Path) -> list[str]:
    return AuditTrail(path).entries(verify=True)[1]


def test_an_entry_says_who_what_when_from_where_and_what_came_of_it(path: Path) -> None:
    AuditTrail(path).record(
        who="user bob", uid=1000, pid=7, action="flows.set", args={"verb": "deny"}, outcome="ok", source="tty pts/0"
    )
    (entry,), wrong = AuditTrail(path).entries()
    assert wrong == []
    assert {name: entry[name] for name in ("number", "who", "uid", "pid", "action", "args", "outcome", "source")} == {
        "number": 1,
        "who": "user bob",
        "uid": 1000,
        "pid": 7,
        "action": "flows.set",
        "args": {"verb": "deny"},
        "outcome": "ok",
        "source": "tty pts/0",
    }
    assert entry["at"].endswith("Z")


def test_the_file_is_for_its_owner_and_group(path: Path) -> None:
    before = os.umask(0)
    try:
        write(AuditTrail(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_command_of_roots_leaves_a_file_that_the_services_user_can_write(tmp_path: Path) -> None:
    os.chown(tmp_path, 64_201, 64_202)
    write(AuditTrail(tmp_path / "audit.log"))
    state = (tmp_path / "audit.log").stat()
    assert (state.st_uid, state.st_gid) == (64_201, 64_202)


def test_two_processes_and_many_threads_write_one_chain(path: Path) -> None:
    trails = [AuditTrail(path) for _ in range(2)]
    threads = [threading.Thread(target=write, args=(trail, 10)) for trail in trails for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems(path) == []
    assert [entry["number"] for entry in AuditTrail(path).entries()[0]] == list(range(1, 61))


def edit(path: Path, change: Any) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"bob", b"eve"), *lines[3:]], "entry 3 was changed"),
        (lambda lines: [*lines[:2], *lines[3:]], "follows entry 2"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "follows entry 2"),
        (lambda lines: [*lines[:2], b"nonsense\n", *lines[2:]], "audit.log:3: no entry"),
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "audit.log:5: no entry"),
    ],
    ids=["changed", "taken out", "put in", "garbage", "damaged"],
)
def test_what_was_tampered_with_shows(path: Path, change: Any, said: str) -> None:
    write(AuditTrail(path), 5)
    assert problems(path) == []
    edit(path, change)
    assert said in " ".join(problems(path))


@pytest.mark.parametrize("left", [0, 2])
def test_what_was_cut_off_the_end_shows_with_the_next_entry(
    path: Path, capfd: pytest.CaptureFixture[str], left: int
) -> None:
    trail = AuditTrail(path)
    write(trail, 5)
    edit(path, lambda lines: lines[:left])
    trail.record(who="user bob", action="reload", args={}, outcome="ok")
    assert "CUT" in "".join(capfd.readouterr())
    numbers = [entry["number"] for entry in trail.entries()[0]]
    assert numbers == [*range(1, left + 1), 6]
    assert bool(problems(path)) is (left > 0)  # without any before it, it could follow a file that rotation removed


def test_a_last_entry_that_was_written_anew_shows_with_the_next(path: Path) -> None:
    trail = AuditTrail(path)
    write(trail, 2)
    edit(path, lambda lines: lines[:1])
    write(AuditTrail(path), 1, who="user eve")
    assert problems(path) == []
    write(trail)
    assert "does not follow" in problems(path)[0]


def test_a_line_that_a_power_cut_tore_is_no_tampering(path: Path) -> None:
    write(AuditTrail(path), 2)
    with path.open("ab") as file:
        file.write(b'{"number":3,"at":"20')
    assert len(problems(path)) == 1
    write(AuditTrail(path), 2)
    assert problems(path) == []
    assert [entry["number"] for entry in AuditTrail(path).entries()[0]] == [1, 2, 3, 4]


def test_it_is_bounded_and_the_chain_goes_on_across_files(path: Path) -> None:
    trail = AuditTrail(path, max_bytes=2000, kept=2)
    write(trail, 60)
    assert sorted(file.name for file in path.parent.iterdir()) == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(file.stat().st_size < 4000 for file in path.parent.iterdir())
    assert problems(path) == []
    numbers = [entry["number"] for entry in trail.entries()[0]]
    assert numbers == list(range(numbers[0], 61))
    (path.parent / "audit.log.1").unlink()
    assert "missing" in problems(path)[0]


@pytest.mark.parametrize("packed", [False, True])
def test_logrotate_may_rename_and_pack_it(path: Path, packed: bool) -> None:
    trail = AuditTrail(path)
    for number in range(3):
        write(trail, 2)
        renamed = path.with_name(f"audit.log-2026010{number}")
        path.rename(renamed)
        if packed:
            renamed.with_name(renamed.name + ".gz").write_bytes(gzip.compress(renamed.read_bytes()))
            renamed.unlink()
        trail = AuditTrail(path)  # also one that remembers nothing
    write(trail)
    assert problems(path) == []
    assert [entry["number"] for entry in trail.entries()[0]] == list(range(1, 8))


def test_entries_are_chosen_and_paged(path: Path) -> None:
    trail = AuditTrail(path, max_bytes=1500)
    write(trail, 5)
    write(trail, 5, who="user eve")
    (latest,) = trail.entries(limit=1)[0]
    assert latest["number"] == 10
    assert [entry["number"] for entry in trail.entries(limit=3, before=5)[0]] == [2, 3, 4]
    assert [entry["number"] for entry in trail.entries(who="bob")[0]] == [1, 2, 3, 4, 5]
    assert [entry["number"] for entry in trail.entries(who=str(os.getuid()), limit=2)[0]] == [9, 10]
    assert [entry["number"] for entry in trail.entries(since=latest["at"])[0]] == [10]
    assert trail.entries(since="9999")[0] == []


def test_arguments_are_bounded(path: Path) -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep, 10**1000]
    write(
        AuditTrail(path),
        args={"many": ["x" * 65_536] * 5000, "deep": deep, **{f"\x1b{n}": "\u202e" * 9999 for n in range(99)}},
        who="\n" * 65_536,
        outcome="\x9b" * 65_536,
    )
    (entry,) = AuditTrail(path).entries()[0]
    assert path.stat().st_size <= 16 * 1024
    assert path.read_text().isascii()
    assert entry["who"].isprintable()
    assert entry["outcome"].isprintable()


def test_a_disk_that_is_full_leaves_no_half_a_line_and_says_the_entry(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trail = AuditTrail(path)
    write(trail)
    write_really = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(28, "No space left on device")
        return write_really(descriptor, data[:-20])

    monkeypatch.setattr(audit.os, "write", full)
    trail.record(who="user bob", action="flows.set", args={"verb": "deny"}, outcome="ok")
    with pytest.raises(AuditError, match="No space left"):
        write(trail)
    monkeypatch.undo()
    said = "".join(capfd.readouterr())
    assert "AUDIT ENTRY NOT WRITTEN" in said
    assert "flows.set" in said
    write(trail)
    assert [entry["number"] for entry in trail.entries()[0]] == [1, 2]
    assert problems(path) == []


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (tmp_path / "precious").write_text("precious")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(AuditError):
        write(AuditTrail(path))
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_is_shown_has_no_hashes_and_says_whether_it_is_whole(path: Path) -> None:
    write(AuditTrail(path))
    report = audit.report(*AuditTrail(path).entries())
    assert list(report["entries"][0]) == ["number", "at", "who", "uid", "pid", "source", "action", "args", "outcome"]
    assert (report["intact"], report["problems"]) == (True, [])
    assert json.loads(path.read_text())["previous"] == "0" * 64
