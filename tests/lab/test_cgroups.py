"""A slice of cgroups for a test: made, entered, and gone with what runs in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.errors import GlacicError, LabError
from glacic.lab import cgroups as lab
from glacic.lab.cgroups import Slice
from glacic.shaping import cgroups


@pytest.fixture
def made() -> Iterator[Slice]:
    with lab.hierarchy() as found, Slice(found) as slice_:
        yield slice_


def test_a_command_runs_in_its_cgroup_and_ends_with_it(made: Slice) -> None:
    made.make("a.service")
    code = "print(repr(open('/proc/self/cgroup').read()), flush=True); import time; time.sleep(999)"
    with subprocess.Popen(made.command("a.service", [sys.executable, "-c", code]), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert f"/{made.path('a.service')}\\n" in process.stdout.readline().decode()
        made.remove("a.service")
        assert process.wait(20) == -9
    assert not made.place("a.service").exists()


def test_everything_below_goes_with_the_block() -> None:
    with lab.hierarchy() as found:
        with Slice(found) as made:
            made.make("b.slice")
            made.make("b.slice/c.service")
            place = made.place("")
        assert not place.exists()


def test_a_cgroup_made_anew_is_another_one(made: Slice) -> None:
    before = made.make("a.service")
    after = made.remake("a.service")
    assert (before.path, before.level) == (after.path, after.level)
    assert before.id != after.id


def test_what_is_not_there_is_said(made: Slice) -> None:
    with pytest.raises(LabError, match=r"there is no cgroup .*/no\.service"):
        made.found("no.service")


def test_what_a_killed_run_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.hierarchy() as found:
        left = found.mount / f"{lab.PREFIX}-4194304-1.slice"  # no process has that number: it is pid_max
        (left / "a.service").mkdir(parents=True)
        with Slice(found):
            assert not left.exists()


def test_a_machine_without_the_mount_gets_one_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> cgroups.Hierarchy:
        raise GlacicError("none")

    monkeypatch.setattr(cgroups, "find", none)
    with lab.hierarchy() as found, Slice(found) as made:
        made.make("a.service")
        place: Path = found.mount
    assert not place.exists()
