"""`limit` and `default_limit`: what they mean, and what they refuse by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from glacic.config.model import Config, DefaultLimit, Limit, LimitEngine, LimitKind, Traffic

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]


def limit(*lines: str, name: str = "backup") -> str:
    return f'limit "{name}" {{\n' + "".join(f"  {line}\n" for line in lines) + "}\n"


def test_a_limit_is_read_without_zones_policies_or_learning(valid: Valid) -> None:
    config = valid(
        limit(
            'unit = "backup.service"',
            'upload = "5 mbit"',
            'download = "2 MiB/s"',
            'engine = "shape"',
            'traffic = "internet"',
            'interface = "eth0"',
            'description = "nightly"',
        )
    )
    assert config.limits == (
        Limit(
            name="backup",
            kind=LimitKind.UNIT,
            target="backup.service",
            upload=625_000,
            download=2 << 20,
            engine=LimitEngine.SHAPE,
            traffic=Traffic.INTERNET,
            interface="eth0",
            description="nightly",
        ),
    )
    assert config.default_limit is None


def test_the_defaults_are_auto_and_all(valid: Valid) -> None:
    (found,) = valid(limit('slice = "web.slice"', 'upload = "1 mbit"')).limits
    assert found == Limit(name="backup", kind=LimitKind.SLICE, target="web.slice", upload=125_000)
    (found,) = valid(limit('cgroup = "lxc/web"', 'download = "1 mbit"')).limits
    assert (found.kind, found.target, found.upload, found.download) == (LimitKind.CGROUP, "lxc/web", 0, 125_000)
    assert (found.engine, found.traffic, found.interface) == (LimitEngine.AUTO, Traffic.ALL, "")


def test_a_default_limit_is_read(valid: Valid) -> None:
    text = 'default_limit {\n  per = "unit"\n  download = "50 mbit"\n}\n'
    assert valid(text).default_limit == DefaultLimit(download=6_250_000)
    text = 'default_limit {\n  upload = "50 mbit"\n  engine = "bpf"\n  traffic = "local"\n}\n'
    found = valid(text).default_limit
    assert found == DefaultLimit(upload=6_250_000, engine=LimitEngine.BPF, traffic=Traffic.LOCAL)
    assert found != replace(found, upload=1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('¶uplaod = "5 mbit"', 'unknown attribute uplaod in limit "backup": did you mean "upload"?'),
        ("¶upload = 5", 'upload must be a string, not the number 5: a rate has a unit: write "5 mbit"'),
        ("¶upload = 0", 'upload must be a string, not the number 0: write a rate, "5 mbit", or "2 MiB/s"'),
        ('¶upload = ["5 mbit"]', 'upload must be one value, not a list: write a rate, "5 mbit", or "2 MiB/s"'),
        ('¶upload = "5 mbti"', '"mbti" is not a unit of a rate: did you mean "mbit"?'),
        ('¶upload = "0 mbit"', '"0 mbit" lets nothing through'),
        ('upload = "5 mbit"\n  ¶engine = "shaep"', '"shaep" is no engine: did you mean "shape"?'),
        ('upload = "5 mbit"\n  ¶traffic = "internt"', '"internt" is no traffic: did you mean "internet"?'),
        ('upload = "5 mbit"\n  engine = "shape"\n  ¶interface = "eth*"', '"eth*" stands for several interfaces'),
        ('upload = "5 mbit"\n  engine = "shape"\n  ¶interface = "lo"', '"lo" belongs to the firewall itself'),
        ('upload = "5 mbit"\n  ¶per = "unit"', 'unknown attribute per in limit "backup"'),
        ('upload = "5 mbit"\n  ¶upload = "6 mbit"', "upload is written twice"),
        ("¶upload = mbit", "upload: unquoted word mbit"),
    ],
)
def test_mistakes_are_told_at_their_place(errors: Check, line: str, says: str) -> None:
    (found,) = errors(limit('unit = "backup.service"', line))
    assert found.startswith(says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('¶unit = "backup"', '"backup" is not the name of a unit: write "backup.service", with its suffix'),
        ('¶slice = "web"', '"web" is not the name of a slice: write "web.slice", with its suffix'),
        ('¶cgroup = "../x"', '"../x" leads out of the hierarchy'),
        ('¶cgroup = "/sys/fs/cgroup/x"', '"/sys/fs/cgroup/x" is absolute: it is relative to the cgroup2 mount'),
        ("¶unit = 7", 'unit must be a string, not the number 7: write "7"'),
    ],
)
def test_targets_that_cannot_be_are_told_once(errors: Check, line: str, says: str) -> None:
    (found,) = errors(limit(line, 'upload = "5 mbit"'))
    assert found.startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("¶default_limit {\n}\n", "default_limit limits nothing"),
        ('default_limit {\n  ¶per = "slice"\n  upload = "1 mbit"\n}\n', '"slice" is no per: write "unit"'),
        ('¶default_limit "x" {\n  upload = "1 mbit"\n}\n', "default_limit has 1 label"),
        (
            'default_limit {\n  upload = "1 mbit"\n}\n¶default_limit {\n  upload = "1 mbit"\n}\n',
            "a second default_limit block in the configuration",
        ),
        ('default_limit {\n  upload = "1 mbit"\n  ¶unit = "x.service"\n}\n', "unknown attribute unit in default_limit"),
        ("¶limit {\n}\n", 'limit has no labels: write `limit "NAME" { ... }`'),
        ('limit ¶"" {\n  unit = "a.service"\n  upload = "1 mbit"\n}\n', "an empty name"),
        (
            'limit ¶"default:a.service" {\n  unit = "a.service"\n  upload = "1 mbit"\n}\n',
            '"default:a.service" is the name of a bucket that default_limit makes',
        ),
        ('¶limits "a" {\n}\n', 'unknown block limits in the configuration: did you mean "limit"?'),
        ('¶default_limit = "5 mbit"\n', "default_limit is a block"),
    ],
)
def test_blocks_that_cannot_be(errors: Check, text: str, says: str) -> None:
    found = errors(text)
    assert found[0].startswith(says)


@pytest.mark.parametrize("name", ['a\\"b', "a\\nb", "$x", "a\\u202eb", "x" * 200])
def test_names_that_could_be_more_than_names_are_refused(errors: Check, name: str) -> None:
    errors(limit('unit = "a.service"', 'upload = "1 mbit"', name="NAME").replace('"NAME"', f'¶"{name}"'))
