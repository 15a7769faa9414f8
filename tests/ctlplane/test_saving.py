"""A limit goes into the file that has it, or nothing is written: what, where, and with whose rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.ctlplane import saving
from glacic.ctlplane.saving import prepare_clear, prepare_set, write
from glacic.errors import ConfigError, GlacicError

MAIN = 'include = "conf.d/*.hcl"\n# the house\nzone "lan" { interface = "lan0" }\n'
LIMITS = '# limits\nlimit "a" { # first\n  unit   = "a.service"\n  upload = "1 mbit"\n}\n'
WANTED = {"unit": "a.service", "upload": "2 mbit"}
NEW = {"unit": "n.service", "download": "2 mbit"}


@pytest.fixture
def main(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "limits.hcl").write_text(LIMITS)
    (tmp_path / "main.hcl").write_text(MAIN)
    return tmp_path / "main.hcl"


def test_a_limit_is_changed_in_the_file_that_has_it(main: Path) -> None:
    change = prepare_set(main, "a", WANTED)
    limits = main.parent / "conf.d" / "limits.hcl"
    assert change.path == limits
    assert limits.read_text() == LIMITS  # nothing is written before it is asked for
    write(change)
    assert limits.read_text() == LIMITS.replace("1 mbit", "2 mbit")
    assert main.read_text() == MAIN
    assert load(main).limits[0].upload == 250_000


def test_a_new_limit_goes_into_the_configuration_itself(main: Path) -> None:
    change = prepare_set(main, "n", NEW)
    assert change.path == main
    write(change)
    assert main.read_text().startswith(MAIN)
    assert {limit.name for limit in load(main).limits} == {"a", "n"}


def test_a_limit_is_taken_out_of_the_file_that_has_it(main: Path) -> None:
    change = prepare_clear(main, "a")
    assert change is not None
    write(change)
    assert (main.parent / "conf.d" / "limits.hcl").read_text() == "# limits\n"
    assert prepare_clear(main, "a") is None


def test_a_limit_is_taken_out_by_what_it_limits_too(main: Path) -> None:
    by_name, by_target = prepare_clear(main, "a"), prepare_clear(main, "a.service")
    assert by_name is not None
    assert by_name == by_target
    assert prepare_clear(main, "z.service") is None


def test_mode_owner_and_a_link_stay(main: Path) -> None:
    real = main.parent / "real.hcl"
    main.rename(real)
    main.symlink_to(real)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 12345, 23456)
    before = real.stat()
    write(prepare_set(main, "n", NEW))
    after = real.stat()
    assert main.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in main.parent.iterdir()) == ["conf.d", "main.hcl", "real.hcl"]


def test_extended_attributes_stay(main: Path) -> None:
    os.setxattr(main, "user.note", b"mine")
    write(prepare_set(main, "n", NEW))
    assert os.getxattr(main, "user.note") == b"mine"


def test_a_byte_order_mark_stays(main: Path) -> None:
    main.write_bytes(b"\xef\xbb\xbf" + MAIN.encode())
    write(prepare_set(main, "n", NEW))
    assert main.read_bytes().startswith(b"\xef\xbb\xbf" + MAIN.encode())


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(main: Path) -> None:
    change = prepare_set(main, "n", NEW)
    main.write_text(MAIN + "# changed\n")
    with pytest.raises(GlacicError, match="somebody has just changed"):
        write(change)
    assert main.read_text() == MAIN + "# changed\n"
    assert sorted(path.name for path in main.parent.iterdir()) == ["conf.d", "main.hcl"]


def test_an_invalid_configuration_is_not_edited(main: Path) -> None:
    main.write_text(MAIN + "nonsense = 1\n")
    for prepare in (lambda: prepare_set(main, "n", NEW), lambda: prepare_clear(main, "a")):
        with pytest.raises(ConfigError, match="unknown attribute nonsense"):
            prepare()


def test_what_would_not_be_valid_is_not_written(main: Path) -> None:
    with pytest.raises(GlacicError, match=r"would not be valid any more(.|\n)*a second limit of a\.service"):
        prepare_set(main, "b", {"unit": "a.service", "upload": "2 mbit"})
    main.write_text('limit "only" {\n  unit = "a.service"\n  upload = "1 mbit"\n}\n')
    with pytest.raises(GlacicError, match=r"would not be valid any more(.|\n)*the configuration is empty"):
        prepare_clear(main, "only")


def test_the_last_limit_of_a_file_of_limits_does_not_close_the_firewall_behind_it(main: Path) -> None:
    main.write_text('integrity = "restore"\nlimit "only" {\n  unit = "a.service"\n  upload = "1 mbit"\n}\n')
    with pytest.raises(GlacicError, match="it would close the firewall to everybody"):
        prepare_clear(main, "only")


def test_an_attribute_on_the_line_of_the_brace_is_no_trouble(main: Path) -> None:
    text = 'limit "x" { unit = "x.service"\n  upload = "1 mbit"\n  download = "1 mbit"\n}\n'
    limits = main.parent / "conf.d" / "limits.hcl"
    limits.write_text(text)
    write(prepare_set(main, "x", {"unit": "x.service", "download": "1 mbit"}))
    assert limits.read_text() == text.replace('  upload = "1 mbit"\n', "")


def test_a_file_with_two_names_is_not_torn_apart(main: Path) -> None:
    os.link(main, main.parent / "other")
    with pytest.raises(GlacicError, match="has 2 names"):
        prepare_set(main, "n", NEW)


def test_a_file_that_may_not_be_written_is_named(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = main.parent / "conf.d" / "limits.hcl"
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != limits)
    with pytest.raises(GlacicError, match=rf"no right to write {limits}"):
        prepare_set(main, "a", WANTED)
    write(prepare_set(main, "n", NEW))


def test_a_write_that_fails_leaves_the_file_as_it_was(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = prepare_set(main, "n", NEW)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(GlacicError, match="No space left on device; be root, or edit it by hand"):
        write(change)
    assert main.read_text() == MAIN
    assert sorted(path.name for path in main.parent.iterdir()) == ["conf.d", "main.hcl"]


def test_text_in_a_name_or_target_stays_text(main: Path) -> None:
    name = "q %{y} # /* é"
    write(prepare_set(main, name, {"cgroup": r"a\x2db/%{c} #", "upload": "2 mbit"}))
    found = {limit.name: limit.target for limit in load(main).limits}
    assert found[name] == r"a\x2db/%{c} #"
    with pytest.raises(GlacicError):
        prepare_set(main, 'x" {\n}\nzone "y', {"unit": "b.service", "upload": "2 mbit"})


def test_an_edit_that_would_mean_something_else_is_left_to_a_person(
    main: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LIMITS.replace("1 mbit", "2 mbit")
    for text in (
        LIMITS,
        LIMITS.replace("1 mbit", "3 mbit"),
        right + 'limit "c" {\n  unit = "c.service"\n  upload = "1 mbit"\n}\n',
        right + 'zone "q" { interface = "q0" }\n',
    ):
        monkeypatch.setattr(saving.edit, "with_limit", lambda *_, text=text: text)
        with pytest.raises(GlacicError, match="cannot be edited for you: change limit a by hand"):
            prepare_set(main, "a", WANTED)
    for text in (LIMITS, 'zone "q" { interface = "q0" }\n'):
        monkeypatch.setattr(saving.edit, "without_limit", lambda *_, text=text: text)
        with pytest.raises(GlacicError, match="cannot be edited for you: change limit a by hand"):
            prepare_clear(main, "a")


def test_a_description_stays(main: Path) -> None:
    limits = main.parent / "conf.d" / "limits.hcl"
    limits.write_text(LIMITS.replace("}", '  description = "x"\n}'))
    write(prepare_set(main, "a", WANTED))
    assert load(main).limits[0].description == "x"


def test_one_of_several_limits_goes_from_a_file_of_limits(main: Path) -> None:
    two = LIMITS + 'limit "slow" {\n  unit   = "b.service"\n  upload = "1 kbit"\n}\n'
    main.write_text(two)
    change = prepare_clear(main, "a")
    assert change is not None
    write(change)
    assert [limit.name for limit in load(main).limits] == ["slow"]
    with pytest.raises(GlacicError) as refused:  # only errors are told, and the small rate is none
        prepare_set(main, "x", {"unit": "b.service", "upload": "2 mbit"})
    assert "a second limit of b.service" in str(refused.value)
    assert "roughly" not in str(refused.value)


def test_a_folder_that_may_not_be_written_and_a_file_that_is_gone(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = prepare_set(main, "n", NEW)
    main.unlink()
    with pytest.raises(GlacicError, match=r"cannot write .*No such file"):
        write(change)
    main.write_text(MAIN)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != main.parent)
    with pytest.raises(GlacicError, match="no right to write"):
        prepare_set(main, "n", NEW)
