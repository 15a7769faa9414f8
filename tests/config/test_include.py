"""include: several files are one configuration, in order, and every mistake is told in the file where it stands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from glacic.config.files import DISK, Kept, Recorder
from glacic.config.include import DEPTH_MAX, FILES_MAX
from glacic.config.load import SIZE_MAX, examine, load
from glacic.config.model import Config


def zone(name: str, interface: str = "") -> str:
    return f'zone "{name}" {{\n  interface = "{interface or name}0"\n}}\n'


def kept(**contents: str) -> Kept:
    """Files by name; `__` in a name stands for a slash, and `.hcl` is put behind it."""
    return Kept({f"{name.replace('__', '/')}.hcl": text.encode() for name, text in contents.items()})


def valid(**contents: str) -> Config:
    config, found = examine(Path("main.hcl"), kept(**contents))
    assert config is not None, "\n".join(one.render() for one in found)
    return config


def told(**contents: str) -> list[str]:
    config, found = examine(Path("main.hcl"), kept(**contents))
    assert config is None
    return [f"{one.span}: {one.summary}: {one.advice}" for one in found]


def names(config: Config) -> list[str]:
    return [zone.name for zone in config.zones]


def test_the_blocks_of_all_files_are_one_configuration_in_the_order_they_are_read() -> None:
    config = valid(
        main=zone("a") + 'include = ["more/*.hcl", "z.hcl"]\n' + zone("e"),
        more__2=zone("c"),
        more__1=zone("b"),
        more__1__deep=zone("never"),
        z=zone("d") + 'integrity = "restore"\n',
    )
    assert names(config) == ["a", "b", "c", "d", "e"]
    assert config.integrity == "restore"
    assert config.path == Path("main.hcl")


def test_a_configuration_in_pieces_is_the_one_it_was_whole() -> None:
    text = (Path(__file__).resolve().parents[2] / "configs" / "home.hcl").read_text()
    whole = load(Path("main.hcl"), Kept({"main.hcl": text.encode()}))
    blocks = [f"{part}\n}}\n" for part in text.split("\n}\n")[:-1]]
    chosen = random.Random(7)
    cuts = sorted(chosen.sample(range(len(blocks)), 2))
    pieces = ["".join(blocks[: cuts[0]]), "".join(blocks[cuts[0] : cuts[1]]), "".join(blocks[cuts[1] :])]
    assert valid(main=pieces[0] + 'include = "b.hcl"\n' + pieces[2], b=pieces[1]) == whole


def test_a_path_is_relative_to_the_file_that_names_it() -> None:
    files = kept(main='include = "sub/a.hcl"\n', sub__a='include = "b.hcl"\n', sub__b=zone("lan"), b=zone("wrong"))
    config, _ = examine(Path("main.hcl"), files)
    assert config is not None
    assert names(config) == ["lan"]
    assert names(valid(main='include = "/etc/x.hcl"', __etc__x=zone("abs"))) == ["abs"]


def test_a_pattern_may_match_nothing_and_a_path_must_be_there() -> None:
    assert names(valid(main='include = "conf.d/*.hcl"\n' + zone("a"))) == ["a"]
    assert told(main=zone("a") + 'include = ["x.hcl", "conf.d/*.hcl"]\n') == [
        "main.hcl:4:12: cannot read x.hcl: not among the files that were kept: "
    ]
    assert told(main='include = "conf.d/*.hcl"\n')[0].startswith("main.hcl:1:1: the configuration is empty: ")


def test_a_pattern_leaves_out_what_was_named_before_it() -> None:
    config = valid(main='include = ["d/z.hcl", "d/*.hcl"]\n', d__a=zone("a"), d__z=zone("z"))
    assert names(config) == ["z", "a"]


def test_a_file_is_read_once() -> None:
    assert told(main='include = ["a.hcl", "./a.hcl"]\n', a=zone("a")) == [
        "main.hcl:1:21: a.hcl is included twice: leave it out here; the first is in line 1"
    ]
    assert told(main='include = ["a.hcl", "b.hcl"]\n', a='include = "b.hcl"\n', b=zone("a")) == [
        "main.hcl:1:21: b.hcl is included twice: leave it out here; the first is in line 1 of a.hcl"
    ]


@pytest.mark.parametrize("back", ["main.hcl", "./main.hcl", "../d/main.hcl", "m*.hcl"])
def test_a_file_that_leads_back_to_itself_is_refused(back: str) -> None:
    files = Kept({"/d/main.hcl": b'include = "a.hcl"\n', "/d/a.hcl": f'include = "{back}"\n'.encode()})
    files.contents["/d/../d/main.hcl"] = files.contents["/d/main.hcl"]  # type: ignore[index]
    config, found = examine(Path("/d/main.hcl"), files)
    assert config is None
    assert [str(one.span) for one in found] == ["/d/a.hcl:1:1"]
    assert found[0].summary.endswith("main.hcl includes itself")


def test_depth_number_and_size_are_bounded() -> None:
    chain = {f"f{at}": f'include = "f{at + 1}.hcl"\n' for at in range(DEPTH_MAX + 1)}
    assert names(valid(main='include = "f1.hcl"\n', **chain | {f"f{DEPTH_MAX}": zone("a")})) == ["a"]
    found = told(main='include = "f0.hcl"\n', **chain)
    assert found == [
        f"f{DEPTH_MAX - 1}.hcl:1:1: files within files, more than {DEPTH_MAX} deep: include it from the first file"
    ]
    many = {f"d__{at}": "" for at in range(FILES_MAX)}
    assert told(main='include = "d/*.hcl"\n', **many)[0].startswith("main.hcl:1:1: more than 1000 files")
    half = "#" * (SIZE_MAX // 2)
    found = told(main='include = ["a.hcl", "b.hcl"]\n', a=half, b=half)
    assert found == ["main.hcl:1:21: the configuration is larger than 4 MiB: the size of all its files counts"]


def test_what_include_is_not() -> None:
    assert told(main=zone("a") + "include = 5\n") == [
        "main.hcl:4:1: the number 5 where text belongs: write it in quotes"
    ]
    assert told(main=zone("a") + 'include = "*/a.hcl"\n') == [
        'main.hcl:4:1: a wildcard in the name of a directory: "*" and "?" may stand behind the last slash'
    ]
    assert told(main=zone("a") + 'include = ""\n') == ['main.hcl:4:1: an empty path: write "conf.d/*.hcl"']
    assert told(main=zone("a") + "include = []\n") == [
        "main.hcl:4:1: include is an empty list: name a file, or leave it out"
    ]
    assert told(main='include = "a.hcl"\ninclude = "b.hcl"\n', a=zone("a"), b=zone("b")) == [
        "main.hcl:2:1: include is written twice: remove one of them; the first is in line 1"
    ]
    assert told(main=zone("a") + "include {}\n") == ["main.hcl:4:1: include is an attribute: write `include = ...`"]
    assert told(main=zone("a") + 'inclide = "a.hcl"\n') == [
        'main.hcl:4:1: unknown attribute inclide in the configuration: did you mean "include"?'
    ]
    assert told(main='zone "a" {\n  interface = "a0"\n  include = "x.hcl"\n}\n')[0].startswith(
        'main.hcl:3:3: unknown attribute include in zone "a"'
    )


def test_every_mistake_is_told_in_its_file_and_in_reading_order() -> None:
    found = told(
        main='include = "d/*.hcl"\nrule_learning {\n  queues = 0\n}\n' + zone("lan"),
        d__a="rule_learning {\n  enabled = 5\n}\n" + zone("lan", "other"),
        d__b='integrity = "never"\npolicy "lan" "wan" {\n  name = "x"\n}\nset "s" {\n  type = "ipv4"\n}\n',
        d__c='integrity = "report"\npolicy "lan" "wan" {\n}\nset "s" {\n  type = "ipv4"\n}\n',
    )
    assert found == [
        "main.hcl:2:1: a second rule_learning block in the configuration: merge it into the one of line 1 of d/a.hcl",
        "main.hcl:3:3: queues = 0 is out of range: write 1 to 256",
        'main.hcl:5:6: a second zone "lan": choose another name, or merge the two; the first is in line 4 of d/a.hcl',
        "d/a.hcl:2:3: enabled must be true or false, not the number 5: write true or false",
        'd/b.hcl:1:1: "never" is no integrity: write "report" or "restore"',
        'd/b.hcl:2:14: unknown zone "wan": did you mean "lan"?',
        "d/c.hcl:1:1: integrity is written twice: remove one of them; the first is in line 1 of d/b.hcl",
        'd/c.hcl:2:1: a second policy from "lan" to "wan": merge it into the one of line 2 of d/b.hcl',
        'd/c.hcl:2:14: unknown zone "wan": did you mean "lan"?',
        'd/c.hcl:4:5: a second set "s": choose another name, or merge the two; the first is in line 5 of d/b.hcl',
    ]


def test_grammar_is_told_for_all_files_together_and_hides_the_rest() -> None:
    found = told(main=zone("a") + 'include = ["a.hcl", "b.hcl"]\nzone {\n', a="zone", b='x = "\n' + zone("a"))
    assert [one.split(": ")[0] for one in found] == ["main.hcl:5:6"]
    found = told(main=zone("a") + 'include = ["a.hcl", "b.hcl", "c.hcl"]\n', a="zone", b='x = "\n' + zone("a"))
    assert [one.split(": ")[0] for one in found] == ["main.hcl:4:30", "a.hcl:1:1", "b.hcl:1:5"]


def test_what_is_no_text_is_told_in_its_file() -> None:
    files = Kept({"main.hcl": b'include = "a.hcl"\n', "a.hcl": b"# \xff\n"})
    config, found = examine(Path("main.hcl"), files)
    assert config is None
    assert [(str(one.span), one.summary) for one in found] == [("a.hcl:1:3", "byte 0xff is not UTF-8")]


def test_on_disk_and_from_what_was_recorded_it_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (tmp_path / "main.hcl").write_text('include = "conf.d/*.hcl"\n' + zone("a"))
    for name in ("20-b.hcl", "10-c.hcl", ".30-d.hcl", "40-e.hcl~", "[x].hcl"):
        (folder / name).write_text(zone(name[3] if name[0] != "[" else "x"))
    recorder = Recorder(DISK)
    config = load(tmp_path / "main.hcl", recorder)
    assert names(config) == ["c", "b", "x", "a"]
    for file in folder.iterdir():
        file.unlink()
    assert load(tmp_path / "main.hcl", Kept(recorder.contents)) == config
    assert names(load(tmp_path / "main.hcl")) == ["a"]


def test_a_link_to_nowhere_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "main.hcl").write_text('include = "*.hcl.d"\n' + zone("a"))
    (tmp_path / "x.hcl.d").symlink_to(tmp_path / "gone")
    config, found = examine(tmp_path / "main.hcl")
    assert config is None
    assert found[0].summary == f"cannot read {tmp_path}/x.hcl.d: No such file or directory"
