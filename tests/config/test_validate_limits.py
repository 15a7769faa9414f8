"""Limits within themselves and among each other; and names that look like a slip of one that this machine has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from glacic.config.model import Config, Limit, LimitEngine, LimitKind
from glacic.config.validate_limits import alike, clash, resembling, wrong

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

BACKUP = 'limit "a" {\n  unit = "backup.service"\n  upload = "5 mbit"\n}\n'


def other(*lines: str) -> str:
    return 'limit "b" {\n' + "".join(f"  {line}\n" for line in lines) + "}\n"


def test_a_limit_has_one_target(errors: Check) -> None:
    (found,) = errors('¶limit "x" {\n  upload = "5 mbit"\n}')
    assert found.startswith('limit "x" names nothing that it limits: write unit = "backup.service"')
    (found,) = errors('limit "x" {\n  slice = "a.slice"\n  ¶unit = "a.service"\n  upload = "5 mbit"\n}')
    assert found.startswith("slice and unit are both written: a limit has one target")


def test_a_limit_limits_something(errors: Check) -> None:
    (found,) = errors('¶limit "x" {\n  unit = "a.service"\n}')
    assert found.startswith('limit "x" limits nothing: write upload = "5 mbit"')


def test_a_rate_that_cannot_be_read_is_told_once(errors: Check) -> None:
    errors('limit "x" {\n  unit = "a.service"\n  ¶upload = "5"\n}')


def test_names_are_given_once(errors: Check) -> None:
    (found,) = errors(f'{BACKUP}limit ¶"a" {{\n  unit = "c.service"\n  upload = "5 mbit"\n}}')
    assert found.startswith('a second limit "a": choose another name')


@pytest.mark.parametrize(
    "target",
    [
        'unit = "backup.service"',
        'cgroup = "system.slice/backup.service"',
        'cgroup = "a.slice/a-b.slice/backup.service"',
    ],
)
def test_a_unit_has_one_limit(errors: Check, target: str) -> None:
    (found,) = errors(BACKUP + other(f"¶{target}", 'download = "5 mbit"'))
    assert 'merge it into limit "a" of line 1' in found


@pytest.mark.parametrize(
    "target",
    [
        'unit = "backup@1.service"',
        'cgroup = "user.slice/user-1000.slice/user@1000.service/app.slice/backup.service"',  # of a user's own systemd
        'cgroup = "system.slice/backup.service/inner"',
        'slice = "backup.slice"',
        'cgroup = "lxc/backup"',
        'cgroup = "system.slice/backup"',
    ],
)
def test_what_is_another_cgroup_has_a_limit_of_its_own(valid: Valid, target: str) -> None:
    valid(BACKUP + other(target, 'download = "5 mbit"'))


def test_the_same_name_in_a_slice_and_beside_it_is_two_cgroups(valid: Valid) -> None:
    valid(
        other('cgroup = "a.slice/x"', 'upload = "5 mbit"')
        + other('cgroup = "x"', 'upload = "5 mbit"').replace('"b"', '"c"')
    )


def test_a_limit_within_a_limit_is_fine(valid: Valid) -> None:
    valid(BACKUP + other('slice = "system.slice"', 'upload = "50 mbit"') + 'default_limit {\n  upload = "1 mbit"\n}\n')


@pytest.mark.parametrize("engine", ['engine = "nft"', 'engine = "bpf"', 'engine = "auto"', ""])
def test_an_interface_is_for_engines_that_work_on_one(errors: Check, engine: str) -> None:
    (found,) = errors(f'limit "x" {{\n  unit = "a.service"\n  upload = "5 mbit"\n  {engine}\n  ¶interface = "eth0"\n}}')
    assert 'leave it out, or write engine = "shape" or "police"' in found
    (found,) = errors(f'default_limit {{\n  upload = "5 mbit"\n  {engine}\n  ¶interface = "eth0"\n}}')
    assert "interface cannot apply to engine" in found


POLICE = 'limit "x" {\n  unit = "a.service"\n  upload = "5 mbit"\n  engine = "police"\n  interface = "eth0"\n}\n'


def test_a_limit_of_a_whole_interface_is_asked_for_by_its_name(errors: Check, notes: Check) -> None:
    (found,) = errors('limit "x" {\n  unit = "a.service"\n  upload = "5 mbit"\n  ¶engine = "police"\n}')
    assert found == (
        "engine police needs interface: it limits everybody on an interface: "
        'if that is wanted, write interface = "eth0"'
    )
    (found,) = notes(POLICE.replace("engine", "¶engine"))
    assert found.startswith("engine police limits all of eth0, not a.service alone")
    (found,) = errors(POLICE.replace("}\n", '  ¶traffic = "local"\n}\n'))
    assert found.startswith('traffic = "local" cannot apply to engine police')
    (found,) = errors('default_limit {\n  upload = "5 mbit"\n  ¶engine = "police"\n  interface = "eth0"\n}')
    assert found.startswith("default_limit cannot use engine police")


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_an_interface_has_one_limit_of_all_of_it(errors: Check, valid: Valid, direction: str) -> None:
    second = POLICE.replace('"x"', '"y"').replace("a.service", "b.service").replace("upload", direction)
    (found,) = errors(POLICE + second.replace("interface", "¶interface"))
    assert found == 'a second limit of all of eth0: merge it into limit "x" of line 1'
    valid(POLICE + second.replace("eth0", "eth1"))


def test_engines_of_tc_have_bounds_of_their_own(errors: Check, valid: Valid) -> None:
    for engine in ("police", "shape"):
        (found,) = errors(POLICE.replace("police", engine).replace('upload = "5 mbit"', '¶upload = "1 kB"'))
        assert found.startswith(f"engine {engine} cannot hold less than 1 KiB/s")
        valid(POLICE.replace("police", engine).replace("5 mbit", "1 KiB/s"))
    (found,) = errors(POLICE.replace('upload = "5 mbit"', '¶upload = "4 GiB/s"'))
    assert found.startswith("engine police cannot hold 4 GiB/s or more")
    valid(POLICE.replace("5 mbit", "3.9 GiB/s"))
    valid(POLICE.replace("police", "shape").replace("5 mbit", "4 GiB/s"))
    errors('default_limit {\n  ¶upload = "1 kB"\n  engine = "shape"\n}\n')
    valid('default_limit {\n  upload = "1 kB"\n  engine = "bpf"\n}\n')


def test_a_small_rate_is_warned_of_with_the_reason(warnings: Check) -> None:
    text = 'limit "x" {\n  unit = "a.service"\n  ¶upload = "40 KiB/s"\n  download = "50 KiB/s"\n}\n'
    (found,) = warnings(text)
    assert found.startswith("upload is less than 50 KiB/s: it is held roughly: the kernel's packets are up to 64 KiB")
    (found,) = warnings('default_limit {\n  ¶download = "1 kbit"\n}\n')
    assert "1049 seconds' worth" in found


def test_what_cannot_be_read_is_told_once_and_nothing_about_it(errors: Check, notes: Check) -> None:
    errors(POLICE.replace('engine = "police"', '¶engine = "polce"'))
    broken = POLICE.replace('interface = "eth0"', '¶interface = "eth*"')
    errors(broken)
    assert notes(broken.replace("¶", "")) == []
    errors('limit "x" {\n  ¶unit = "a"\n  upload = "5 mbit"\n}\nlimit "y" {\n  ¶unit = "b"\n  upload = "5 mbit"\n}\n')
    bare = POLICE.replace('  interface = "eth0"\n', "").replace("engine", "¶engine")
    assert len(errors(bare + bare.replace('"x"', '"y"').replace("a.service", "b.service"))) == 2


def test_limits_of_one_cgroup_may_share_an_interface(valid: Valid) -> None:
    shape = POLICE.replace("police", "shape")
    valid(shape + shape.replace('"x"', '"y"').replace("a.service", "b.service"))


OFFLOAD = """rule_learning {
  enabled       = true
  inline_mode   = true
  packet_window = 5
  offload_mark  = "0x01000000"
}
"""


@pytest.mark.parametrize("block", ['limit "x" {\n  unit = "a.service"\n', "default_limit {\n"])
def test_shape_s_downloads_and_offloaded_connections_have_bits_of_their_own(
    errors: Check, valid: Valid, block: str
) -> None:
    shape = block + '  download = "5 mbit"\n  ¶engine = "shape"\n}\n'
    (found,) = errors(OFFLOAD + shape)
    assert found.startswith("engine shape tells downloads by the bits 0xff000000 of the connection mark")
    assert "offload_mark of line 5 has some of them" in found
    fine = shape.replace("¶", "")
    valid(OFFLOAD.replace("0x01000000", "0x00010000") + fine)
    valid(OFFLOAD.replace("packet_window = 5", "packet_window = 0") + fine)
    valid(OFFLOAD + fine.replace("download", "upload"))
    valid(OFFLOAD + fine.replace("shape", "nft"))


# Units that the machine knows

UNITS = {
    "getty@tty2.service",
    "backup.service",
    "nginx.service",
    "getty@.service",
    "system.slice",
    "web.slice",
    "backup.timer",
    "srv.mount",
}


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("backup.service", ""),
        ("bakcup.service", "backup.service"),
        ("ngnix.service", "nginx.service"),
        ("getty@tty1.service", ""),
        ("gety@tty1.service", "getty@tty2.service"),
        ("something-to-come.service", ""),
        ("webs.slice", "web.slice"),
        ("serv.mount", "srv.mount"),
        ("up.service", ""),
    ],
)
def test_a_name_that_looks_like_a_slip_is_told(target: str, meant: str) -> None:
    assert alike(target, UNITS) == meant


def test_a_slip_is_a_note_and_the_limit_is_kept(valid: Valid) -> None:
    config = valid(
        BACKUP.replace("backup", "bakcup") + other('cgroup = "bakcup.scope/nginx.servic"', 'upload = "5 mbit"')
    )
    (found,) = resembling(config, UNITS)
    assert (found.severity, found.span.line) == ("note", 2)
    assert found.summary == "this machine has no unit bakcup.service"
    assert found.advice == 'did you mean "backup.service"? The limit waits until there is a bakcup.service'
    assert len(config.limits) == 2


def test_nothing_is_said_of_paths(valid: Valid) -> None:
    assert resembling(valid(other('cgroup = "bakcup.service"', 'upload = "5 mbit"')), UNITS) == []


def test_nothing_is_said_where_no_units_are_known(valid: Valid) -> None:
    assert resembling(valid(BACKUP), ()) == []


# Limits that stand in no file


def test_what_a_file_would_be_told_of_a_limit_is_told_without_one() -> None:
    limit = Limit(name="a", kind=LimitKind.UNIT, target="a.service", upload=1 << 20)
    assert wrong(limit) == ""
    assert wrong(replace(limit, upload=1)) == ""  # a warning is no error
    police = replace(limit, engine=LimitEngine.POLICE)
    assert wrong(police).startswith("engine police needs interface: it limits everybody")
    assert wrong(replace(police, interface="eth0")) == ""
    assert wrong(replace(limit, interface="eth0")).startswith("interface cannot apply to engine auto: leave it out")
    assert wrong(replace(limit, engine=LimitEngine.SHAPE, upload=1000)).startswith("engine shape cannot hold less")


def test_two_limits_of_one_thing_clash() -> None:
    limit = Limit(name="a", kind=LimitKind.UNIT, target="a.service", upload=1 << 20)
    path = Limit(name="b", kind=LimitKind.CGROUP, target="system.slice/a.service", upload=1)
    assert clash(limit, path) == "system.slice/a.service"
    assert clash(limit, replace(limit, target="b.service")) == ""
    police = replace(limit, engine=LimitEngine.POLICE, interface="eth0")
    assert clash(replace(police, target="b.service"), police) == "all of eth0"
    assert clash(replace(police, target="b.service", interface="eth1"), police) == ""
