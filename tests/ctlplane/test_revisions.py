"""Revisions: numbered, kept with their files, on trial or not; whole after any crash, and never more than a number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glacic.ctlplane.revisions import KEPT, Origin, Revisions, Standing, digest_of, trial_dict
from glacic.errors import GlacicError

ME = Origin(who="user root", what="apply", source="192.0.2.1 1 192.0.2.2 22")
CONFIG = Path("/etc/glacic/glacic.hcl")


def files(text: str) -> dict[str, bytes]:
    return {str(CONFIG): text.encode()}


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    return Revisions(tmp_path)


def test_what_is_put_in_force_is_kept_with_its_files(revisions: Revisions) -> None:
    first = revisions.record(ME, CONFIG, files("one"), "script one")
    assert (first.number, first.state, first.who, first.source) == (1, "confirmed", "user root", ME.source)
    assert revisions.standing().in_force == 1
    assert revisions.files(1).contents == files("one")
    assert revisions.document(1)["script"] == "script one"


def test_the_same_files_again_are_no_new_revision(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    assert revisions.record(ME, CONFIG, files("one"), "").number == 1
    assert revisions.record(ME, CONFIG, files("one"), "", trial_s=60).number == 1
    assert revisions.standing().trial is None
    assert revisions.record(ME, CONFIG, files("two"), "").number == 2
    assert revisions.record(ME, CONFIG, files("one"), "").number == 3  # what was in force before is a change again


def test_any_bytes_are_kept(revisions: Revisions) -> None:
    content = {"/a\udcff": bytes(range(256))}
    revisions.record(ME, CONFIG, content, "")
    assert revisions.files(1).contents == content


def test_a_trial_is_confirmed_or_taken_back(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    tried = revisions.record(ME, CONFIG, files("two"), "", trial_s=60)
    trial = revisions.standing().trial
    assert trial is not None
    assert (tried.state, trial.number, trial.back_to) == ("on trial", 2, 1)
    told = trial_dict(trial)
    assert told is not None
    assert 55 <= told["seconds_left"] <= 60
    assert revisions.confirm().state == "confirmed"
    assert (revisions.standing().in_force, revisions.standing().trial) == (2, None)
    revisions.record(ME, CONFIG, files("three"), "", trial_s=60)
    after = revisions.reverted()
    assert (after.in_force, after.trial, after.overruled) == (2, None, digest_of(files("three")))
    assert [one.state for one in after.revisions] == ["confirmed", "confirmed", "reverted"]
    with pytest.raises(GlacicError, match="nothing waits"):
        revisions.confirm()


def test_a_second_trial_goes_back_to_where_the_first_would_have(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    revisions.record(ME, CONFIG, files("two"), "", trial_s=60)
    revisions.record(ME, CONFIG, files("three"), "", trial_s=60)
    standing = revisions.standing()
    assert standing.trial is not None
    assert (standing.trial.number, standing.trial.back_to) == (3, 1)
    assert [one.state for one in standing.revisions] == ["confirmed", "reverted", "on trial"]


def test_the_one_before_is_the_last_that_held(revisions: Revisions) -> None:
    with pytest.raises(GlacicError, match="no earlier revision"):
        revisions.standing().before(None)
    revisions.record(ME, CONFIG, files("one"), "")
    revisions.record(ME, CONFIG, files("two"), "", trial_s=60)
    revisions.reverted()
    revisions.record(ME, CONFIG, files("three"), "")
    assert revisions.standing().before(None).number == 1
    assert revisions.standing().before(2).state == "reverted"
    with pytest.raises(GlacicError, match="no revision 9"):
        revisions.standing().before(9)


def test_a_file_that_was_overruled_is_remembered_until_something_else_is_put_in_force(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    revisions.overrule("digest")
    assert revisions.standing().overruled == "digest"
    revisions.record(ME, CONFIG, files("one"), "")
    assert revisions.standing().overruled == ""


def test_old_revisions_go_and_the_one_that_may_come_back_stays(revisions: Revisions, tmp_path: Path) -> None:
    revisions.record(ME, CONFIG, files("first"), "")
    for number in range(KEPT + 5):
        revisions.record(ME, CONFIG, files(f"try {number}"), "", trial_s=60)
    kept = [one.number for one in revisions.standing().revisions]
    assert kept == [1, *range(7, KEPT + 7)]
    assert len(list((tmp_path / "history").iterdir())) == len(kept)


def test_a_damaged_history_is_set_aside_and_numbers_go_on(revisions: Revisions, tmp_path: Path) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    (tmp_path / "history.json").write_text('{"revisions": [1]}')
    assert revisions.standing().revisions == ()
    assert [path for path in tmp_path.iterdir() if ".damaged-" in path.name] != []
    assert revisions.record(ME, CONFIG, files("two"), "").number == 2


def test_a_damaged_revision_says_so(revisions: Revisions, tmp_path: Path) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    (tmp_path / "history" / "1.json.gz").write_bytes(b"garbage")
    with pytest.raises(GlacicError, match="damaged"):
        revisions.files(1)
    with pytest.raises(GlacicError, match="no revision 5"):
        revisions.files(5)


def test_after_an_unload_nothing_is_in_force(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    revisions.unloaded()
    assert revisions.standing().in_force is None
    revisions.record(ME, CONFIG, files("one"), "", trial_s=60)
    trial = revisions.standing().trial
    assert trial is not None
    assert (trial.number, trial.back_to) == (2, None)


def test_a_panic_is_remembered(revisions: Revisions) -> None:
    revisions.panic(True)
    assert revisions.standing().as_dict()["panic"] is True
    revisions.panic(False)
    assert revisions.standing().panic is False


def test_one_rollback_after_the_other_goes_further_back(revisions: Revisions) -> None:
    for text in ("one", "two", "three"):
        revisions.record(ME, CONFIG, files(text), "")
    assert revisions.standing().before(None).number == 2
    revisions.record(ME, CONFIG, files("two"), "", restores=2)
    assert revisions.standing().before(None).number == 1  # and not three again
    revisions.record(ME, CONFIG, files("one"), "", restores=1)
    with pytest.raises(GlacicError, match="no earlier revision"):
        revisions.standing().before(None)
    revisions.record(ME, CONFIG, files("six"), "")
    assert revisions.standing().before(None).number == 5


def test_a_refused_trial_leaves_the_one_that_it_would_have_replaced_open(revisions: Revisions) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    revisions.record(ME, CONFIG, files("two"), "", trial_s=60)
    before = revisions.standing()
    revisions.record(ME, CONFIG, files("three"), "", trial_s=60)
    revisions.withdrawn(3, before)
    after = revisions.standing()
    assert (after.in_force, after.trial) == (2, before.trial)
    assert [one.state for one in after.revisions] == ["confirmed", "on trial", "reverted"]
    revisions.withdrawn(3, before)  # not another one's
    assert revisions.standing() == after


def test_a_history_that_cannot_be_written_names_no_file_that_is_gone(
    revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(KEPT):
        revisions.record(ME, CONFIG, files(f"{number}"), "")

    def full(_: Revisions, __: Standing) -> None:
        raise GlacicError("full")

    monkeypatch.setattr(Revisions, "_write", full)
    with pytest.raises(GlacicError, match="full"):
        revisions.record(ME, CONFIG, files("one more"), "")
    assert [revisions.files(one.number).contents for one in revisions.standing().revisions] != []
    with pytest.raises(GlacicError, match="full"):
        revisions.make_sure()


def test_what_a_later_version_has_written_is_read_as_far_as_it_is_known(revisions: Revisions, tmp_path: Path) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    path = tmp_path / "history.json"
    document = json.loads(path.read_text())
    document["revisions"][0]["colour"] = "blue"
    path.write_text(json.dumps(document))
    assert revisions.standing().in_force == 1


def test_what_a_kill_has_left_is_removed(revisions: Revisions, tmp_path: Path) -> None:
    revisions.record(ME, CONFIG, files("one"), "")
    left = (tmp_path / ".history.json.new", tmp_path / "history" / ".2.json.gz.new")
    for path in left:
        path.write_text("half")
    revisions.tidy()
    assert [path for path in left if path.exists()] == []
    assert revisions.standing().in_force == 1
