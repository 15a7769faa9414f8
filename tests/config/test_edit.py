"""One limit of a file is changed, and every other character stays."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.edit import has_limit, quoted, with_limit, without_limit
from glacic.config.load import examine_source
from glacic.config.model import Limit
from glacic.config.source import Source

TEXT = """\
# The line has 20 mbit up.
rule_learning { enabled = true }

# Nightly.
limit "backup" { # at three
  unit     = "backup.service" # rsync
  # not more than a fifth
  upload   = "5 mbit"      # measured
  engine   = "nft"

  description = "x"
} // backup

limit "web" {
  slice = "web.slice"
  download = "1 MiB/s"
}

zone "lan" { interface = "lan0" }
"""
BACKUP = {"unit": "backup.service", "upload": "5 mbit", "engine": "nft"}


def edited(text: str, name: str, wanted: Mapping[str, str]) -> str:
    new = with_limit(Source("a.hcl", text), name, wanted)
    config, found = examine_source(Source("a.hcl", new))
    assert config is not None, "\n".join(one.render() for one in found)
    return new


def test_what_means_the_same_stays_as_it_is_written() -> None:
    assert edited(TEXT, "backup", BACKUP) == TEXT
    assert edited(TEXT, "backup", {**BACKUP, "upload": "625 kB/s"}) == TEXT
    assert edited(TEXT, "web", {"slice": "web.slice", "download": "1024 KiB/s"}) == TEXT


def test_a_value_changes_in_its_place() -> None:
    assert edited(TEXT, "backup", {**BACKUP, "upload": "6 mbit"}) == TEXT.replace('"5 mbit"', '"6 mbit"')
    new = edited(TEXT, "backup", {"unit": "b.service", "upload": "6 mbit", "engine": "bpf"})
    assert new == TEXT.replace('"5 mbit"', '"6 mbit"').replace("backup.service", "b.service").replace('"nft"', '"bpf"')


def test_an_attribute_comes_where_it_belongs_in_the_blocks_own_layout() -> None:
    new = edited(TEXT, "backup", {**BACKUP, "download": "2 MiB/s", "traffic": "internet"})
    assert new == TEXT.replace(
        '"5 mbit"      # measured\n', '"5 mbit"      # measured\n  download = "2 MiB/s"\n'
    ).replace('"nft"\n', '"nft"\n  traffic  = "internet"\n')
    new = edited(TEXT, "web", {"slice": "web.slice", "upload": "5 mbit", "download": "1 MiB/s"})
    assert new == TEXT.replace('"web.slice"\n', '"web.slice"\n  upload = "5 mbit"\n')


def test_an_attribute_goes_and_its_comment_stays() -> None:
    new = edited(TEXT, "backup", {"unit": "backup.service", "download": "2 MiB/s", "engine": "nft"})
    assert "  # not more than a fifth\n  # measured\n" in new
    assert "upload" not in new
    new = edited(
        TEXT + 'limit "c" {\n  unit = "c.service"\n  upload = "1 mbit"\n  download = "1 mbit"\n}\n',
        "c",
        {"unit": "c.service", "download": "1 mbit"},
    )
    assert new.endswith('limit "c" {\n  unit = "c.service"\n  download = "1 mbit"\n}\n')


def test_a_default_that_is_written_stays_written() -> None:
    new = edited(TEXT, "backup", {"unit": "backup.service", "upload": "5 mbit"})
    assert new == TEXT.replace('"nft"', '"auto"')
    assert edited(TEXT, "web", {"slice": "web.slice", "download": "1 MiB/s", "engine": "auto"}) == TEXT


def test_a_target_of_another_kind_takes_the_old_ones_place() -> None:
    new = edited(TEXT, "backup", {"cgroup": "lxc/b", "upload": "5 mbit", "engine": "nft"})
    assert new == TEXT.replace('unit     = "backup.service"', 'cgroup   = "lxc/b"')


def test_a_new_limit_stands_behind_the_last_one() -> None:
    block = 'limit "new" {\n  unit     = "n.service"\n  download = "1 mbit"\n}\n'
    new = edited(TEXT, "new", {"unit": "n.service", "download": "1 mbit", "engine": "auto", "traffic": "all"})
    assert new == TEXT.replace('"1 MiB/s"\n}\n', f'"1 MiB/s"\n}}\n\n{block}')
    crowded = 'limit "a" {\n  unit   = "a.service"\n  upload = "1 mbit"\n}\ndefault_limit {\n  upload = "1 mbit"\n}\n'
    assert edited(crowded, "new", {"unit": "n.service", "download": "1 mbit"}) == crowded.replace(
        "default", f"\n{block}\ndefault"
    )
    zone = 'zone "lan" { interface = "lan0" }'
    assert edited(zone, "new", {"unit": "n.service", "download": "1 mbit"}) == f"{zone}\n\n{block}"


def test_a_limit_goes_with_its_lines_and_nothing_else() -> None:
    def without(name: str, text: str = TEXT) -> str:
        return without_limit(Source("a.hcl", text), name)

    start, end = TEXT.index('limit "web"'), TEXT.index('zone "lan"')
    assert without("web") == TEXT[:start] + TEXT[end:]
    start, end = TEXT.index('limit "backup"'), TEXT.index('limit "web"')
    assert without("backup") == TEXT[:start] + "// backup\n\n" + TEXT[end:]
    assert without("a", 'limit "a" {\n  unit = "a.service"\n}\n') == ""
    both = 'zone "z" { interface = "z0" }\n\nlimit "a" {\n  unit = "a.service"\n}\n'
    assert without("a", both) == 'zone "z" { interface = "z0" }\n'
    with pytest.raises(ValueError, match=r"no limit x in a\.hcl"):
        without("x")


def test_blank_lines_around_a_limit_that_goes_stay_as_they_were_for_the_others() -> None:
    block = 'limit "a" {\n  unit = "a.service"\n}\n'

    def without(before: str, after: str) -> str:
        return without_limit(Source("a.hcl", before + block + after), "a")

    zone = 'zone "z" { interface = "z0" }\n'
    for before, after, left in (
        (zone, f"  {zone}", f"{zone}  {zone}"),
        (zone, f"\n{zone}", f"{zone}\n{zone}"),
        (f"{zone}\n", f"  {zone}", f"{zone}\n  {zone}"),
        (f"{zone}\n", f"\n{zone}", f"{zone}\n{zone}"),
        (f"{zone}\n", f" \t\n{zone}", f"{zone}\n{zone}"),
        (f"{zone}\n", "", zone),
        (zone, "", zone),
        ("", f"\n{zone}", zone),
        ("", zone, zone),
        ("/* one */ ", f"# two\n{zone}", f"/* one */ \n# two\n{zone}"),
    ):
        assert without(before, after) == left


def test_a_value_that_is_written_with_escapes_stays_so() -> None:
    text = TEXT.replace('"backup.service"', r'"b\u0061ckup.service"')
    assert edited(text, "backup", {**BACKUP, "upload": "6 mbit"}) == text.replace("5 mbit", "6 mbit")


def test_only_rates_are_the_same_in_other_words() -> None:
    text = 'limit "a" {\n  cgroup = "5 mbit"\n  upload = "5 mbit"\n}\n'
    new = edited(text, "a", {"cgroup": "625 kB", "upload": "625 kB"})
    assert new == text.replace('cgroup = "5 mbit"', 'cgroup = "625 kB"')


def test_a_block_in_the_making_is_filled_in() -> None:
    """Not valid before, and so not met by the command line."""
    source = Source("a.hcl", 'limit "a" {\n}\n')
    assert with_limit(source, "a", {"unit": "a.service"}) == 'limit "a" {\n  unit = "a.service"\n}\n'
    source = Source("a.hcl", 'limit "a" {\n\tupload  = "1 mbit"\n}\n')
    new = with_limit(source, "a", {"unit": "a.service", "upload": "1 mbit"})
    assert new == 'limit "a" {\n\tunit    = "a.service"\n\tupload  = "1 mbit"\n}\n'


def test_indentation_is_the_blocks_own() -> None:
    text = 'limit "a" {\n\t\tunit = "a.service"\n\t\tupload = "1 mbit"\n}\n'
    new = edited(text, "a", {"unit": "a.service", "upload": "1 mbit", "download": "1 mbit"})
    assert new == text.replace("}", '\t\tdownload = "1 mbit"\n}')
    text = 'limit "a" { unit = "a.service"\n}\n'
    assert edited(text, "a", {"unit": "a.service", "upload": "1 mbit"}).split("\n")[1] == '  upload = "1 mbit"'


def test_a_first_limit_in_an_empty_file() -> None:
    assert edited("", "a", {"unit": "a.service", "upload": "1 mbit"}).startswith('limit "a" {\n  unit   = "a')
    assert edited("# x", "a", {"unit": "a.service", "upload": "1 mbit"}).startswith('# x\n\nlimit "a" {\n')


def test_line_ends_stay_as_they_are() -> None:
    dos = TEXT.replace("\n", "\r\n")
    new = edited(dos, "backup", {**BACKUP, "download": "2 MiB/s"})
    assert new.replace("\r\n", "\n") == edited(TEXT, "backup", {**BACKUP, "download": "2 MiB/s"})
    assert "\n" not in new.replace("\r\n", "")
    gone = without_limit(Source("a.hcl", dos), "web")
    assert gone.replace("\r\n", "\n") == without_limit(Source("a.hcl", TEXT), "web")
    assert "\n" not in edited(dos, "new", {"unit": "n.service", "upload": "1 mbit"}).replace("\r\n", "")


def test_a_name_or_comment_that_looks_like_a_limit_is_none() -> None:
    text = '# limit "x" {\nzone "limit" { interface = "l0" }\npolicy "limit" "firewall" {\n  name = "limit \\"x"\n}\n'
    assert not has_limit(Source("a.hcl", text), "x")
    assert not has_limit(Source("a.hcl", text), "limit")
    assert has_limit(Source("a.hcl", TEXT), "backup")
    with pytest.raises(ValueError, match=r"."):
        has_limit(Source("a.hcl", "limit {{"), "x")


names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\$'), min_size=1, max_size=20)
rates = st.sampled_from(["1 mbit", "2 MiB/s", "50 kbytes"])
wishes = st.fixed_dictionaries(
    {"upload": rates},
    optional={
        "download": rates,
        "engine": st.sampled_from(["auto", "nft", "bpf"]),
        "traffic": st.sampled_from(["all", "local"]),
    },
).flatmap(
    lambda rest: st.sampled_from(
        [{"unit": r"srv\x2da.service"}, {"slice": "w.slice"}, {"cgroup": "a/b%{c}"}, {"cgroup": "#/*x"}]
    ).map(lambda target: {**target, **rest})
)


@given(names, st.lists(wishes, min_size=1, max_size=4))
def test_any_limit_can_be_added_changed_and_taken_out_again(name: str, wanted: list[dict[str, str]]) -> None:
    text = TEXT
    for wish in wanted:
        text = edited(text, name, wish)
        config, _ = examine_source(Source("a.hcl", text))
        assert config is not None
        limits = {limit.name: limit for limit in config.limits}
        assert (limits[name].kind in wish, limits[name].target) == (True, wish[limits[name].kind])
        assert (limits[name].engine, limits[name].traffic) == (wish.get("engine", "auto"), wish.get("traffic", "all"))
        assert bool(limits[name].download) == ("download" in wish)
        assert _others(limits, name) == _others({limit.name: limit for limit in _limits(TEXT)}, name)
    assert all(comment in text for comment in ("# measured", "# rsync", "# at three", "// backup", "# Nightly."))
    if name not in ("backup", "web"):
        assert without_limit(Source("a.hcl", text), name) == TEXT


def _limits(text: str) -> tuple[Limit, ...]:
    config, _ = examine_source(Source("a.hcl", text))
    assert config is not None
    return config.limits


def _others(limits: Mapping[str, Limit], name: str) -> dict[str, Limit]:
    return {other: limit for other, limit in limits.items() if other != name}


@given(st.text(st.characters(exclude_categories=["C"]), max_size=40))
def test_quoted_text_is_read_as_the_same(text: str) -> None:
    from glacic.config.syntax import Literal, parse

    body, problems = parse(Source("a.hcl", f"a = {quoted(text)}\n"))
    assert body is not None, problems
    value = body.attributes[0].value
    assert isinstance(value, Literal)
    assert value.value == text
