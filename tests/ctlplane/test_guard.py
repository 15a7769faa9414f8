"""The guard of a trial: it acts when the time is over and nobody else did; test_changes.py proves what that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.ctlplane import guard, offline
from glacic.ctlplane.revisions import Origin, Revisions, Standing
from glacic.ctlplane.startup import only_one
from glacic.ctlplane.wholefile import locked
from glacic.errors import GlacicError

ME = Origin(who="user root", what="apply")
CONFIG = Path("/etc/glacic/glacic.hcl")


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Revisions:
    monkeypatch.chdir(tmp_path)  # it leaves the folder that it was started in
    monkeypatch.setattr(guard.logs, "configure", lambda: None)  # of this process, which is no guard
    found = Revisions(tmp_path)
    found.record(ME, CONFIG, {"a": b"1"}, "")
    found.record(ME, CONFIG, {"a": b"2"}, "", trial_s=60)
    return found


@pytest.fixture
def brought_back(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    monkeypatch.setattr(offline, "bring_back", found.append)
    return found


def words(revisions: Revisions, number: int = 2, left_s: float = 0.0) -> list[str]:
    return [str(revisions.state_dir), str(number), str(left_s)]


def test_when_the_time_is_over_it_acts(revisions: Revisions, brought_back: list[Path]) -> None:
    assert guard.main(words(revisions, left_s=0.1)) == 0
    assert brought_back == [revisions.state_dir]


def test_what_was_confirmed_is_left(revisions: Revisions, brought_back: list[Path]) -> None:
    revisions.confirm()
    assert guard.main(words(revisions, left_s=60.0)) == 0
    assert brought_back == []


def test_another_trial_is_another_guards(revisions: Revisions, brought_back: list[Path]) -> None:
    assert guard.main(words(revisions, number=1, left_s=60.0)) == 0
    assert brought_back == []


def test_a_service_that_lives_gets_more_time(
    revisions: Revisions, brought_back: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            revisions.reverted()  # the service did it

    monkeypatch.setattr(guard.time, "sleep", look)
    with only_one(revisions.state_dir / "lock"):
        assert guard.main(words(revisions)) == 0
    assert (len(looks), brought_back) == (2, [])


def test_a_service_that_stands_still_is_not_waited_for(
    revisions: Revisions, brought_back: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "GRACE_S", 0.1)
    with only_one(revisions.state_dir / "lock"):
        assert guard.main(words(revisions)) == 0
    assert brought_back == [revisions.state_dir]


def test_where_it_is_refused_it_tries_again(revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[Path] = []

    def refuse(state_dir: Path) -> None:
        attempts.append(state_dir)
        if len(attempts) < 3:
            raise GlacicError("the kernel refused")

    monkeypatch.setattr(offline, "bring_back", refuse)
    monkeypatch.setattr(guard, "AGAIN_S", 0.0)
    assert guard.main(words(revisions)) == 0
    assert len(attempts) == 3
    assert revisions.standing().in_force == 1


def test_with_a_full_disk_it_brings_back_once_and_writes_that_down_when_there_is_room(
    revisions: Revisions, brought_back: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    really, full = Revisions.reverted, [True, True]

    def reverted(self: Revisions) -> Standing:
        if full:
            full.pop()
            raise GlacicError("cannot write history.json: No space left on device")
        return really(self)

    monkeypatch.setattr(Revisions, "reverted", reverted)
    monkeypatch.setattr(guard, "AGAIN_S", 0.0)
    assert guard.main(words(revisions)) == 0
    assert brought_back == [revisions.state_dir]
    assert revisions.standing().trial is None


def test_whoever_stands_still_with_the_lock_does_not_keep_it(
    revisions: Revisions, brought_back: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "WAIT_S", 0.1)
    with locked(revisions.state_dir / "change.lock", 1.0):
        assert guard.main(words(revisions)) == 0
    assert brought_back == [revisions.state_dir]
