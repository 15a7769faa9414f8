"""What a start takes: the file, unless it did not hold or is broken and there is something better."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.config.files import DISK, Recorder
from glacic.config.load import load
from glacic.ctlplane.revisions import Origin, Revisions
from glacic.ctlplane.startup import choose, make_folder, only_one, overrule
from glacic.errors import ConfigError, GlacicError

ONE = 'zone "one" { interface = "a0" }\n'
TWO = 'zone "two" { interface = "a0" }\n'
ME = Origin(who="user root", what="apply")


class Place:
    """A configuration file, and a history beside it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "glacic.hcl"
        self.revisions = Revisions(folder)

    def put(self, text: str, trial_s: float | None = None) -> None:
        self.file.write_text(text)
        recorder = Recorder(DISK)
        load(self.file, recorder)
        self.revisions.record(ME, self.file, recorder.contents, "", trial_s=trial_s)

    def chosen(self) -> str:
        return choose(self.file, self.revisions).config.zones[0].name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_usually_it_is_the_file(place: Place) -> None:
    place.put(ONE)
    place.file.write_text(TWO)
    choice = choose(place.file, place.revisions)
    assert (choice.config.zones[0].name, choice.broken, choice.note) == ("two", "", "")


def test_a_file_that_was_on_trial_is_left_until_it_changes(place: Place) -> None:
    place.put(ONE)
    place.put(TWO, trial_s=60)
    choice = choose(place.file, place.revisions)
    assert (choice.config.zones[0].name, "on trial" in choice.note, choice.tried) == ("one", True, True)
    assert place.revisions.standing().trial is not None  # its guard watches until the start has come to its end
    place.revisions.reverted()
    assert place.chosen() == "one"
    place.file.write_text(TWO + "# mended\n")
    assert place.chosen() == "two"


def test_a_file_that_was_rolled_back_from_is_left_too(place: Place) -> None:
    place.put(ONE)
    place.put(TWO)
    place.revisions.record(ME, place.file, place.revisions.files(1).contents, "")
    assert overrule(place.revisions, place.file, place.revisions.standing().before(1))
    assert place.chosen() == "one"
    place.file.write_text(ONE)
    assert not overrule(place.revisions, place.file, place.revisions.standing().before(1))


def test_a_broken_file_is_no_start_where_nothing_was_in_force(place: Place) -> None:
    place.file.write_text("zone {")
    with pytest.raises(ConfigError):
        choose(place.file, place.revisions)


def test_a_broken_file_closes_what_was_in_force(place: Place) -> None:
    place.put(ONE)
    place.file.write_text("zone {")
    choice = choose(place.file, place.revisions)
    assert choice.config.zones[0].name == "one"
    assert str(place.file) in choice.broken
    place.revisions.state_dir.joinpath("history", "1.json.gz").write_bytes(b"")
    with pytest.raises(ConfigError):  # and where that cannot be read either, it is the file's errors that are said
        choose(place.file, place.revisions)


def test_two_services_cannot_share_a_state_directory(tmp_path: Path) -> None:
    make_folder(tmp_path / "state")
    with (
        only_one(tmp_path / "state" / "lock"),
        pytest.raises(GlacicError, match="another service"),
        only_one(tmp_path / "state" / "lock"),
    ):
        pass
