"""What a limit can name: units, slices and paths below the cgroup2 mount."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config import cgroups
from glacic.config.model import LimitKind
from glacic.config.values import Invalid


@pytest.mark.parametrize(
    "name",
    ["backup.service", "user@1000.service", "session-3.scope", r"srv-a\x2db.mount", "-.mount", "a:b_c.d.service"],
)
def test_units(name: str) -> None:
    assert cgroups.unit(name) == name
    assert cgroups.kind_of(name) is LimitKind.UNIT


@pytest.mark.parametrize("name", ["web.slice", "a-b.slice", "system.slice"])
def test_slices(name: str) -> None:
    assert cgroups.slice_name(name) == name
    assert cgroups.kind_of(name) is LimitKind.SLICE


@pytest.mark.parametrize(
    "path", ["system.slice/backup.service", "x", "a b/c", r"system.slice/srv-a\x2db.mount", "lxc/été", "...", "-x/--y"]
)
def test_paths(path: str) -> None:
    assert cgroups.cgroup(path) == path
    assert (cgroups.kind_of(path) is LimitKind.CGROUP) == ("/" in path)


def test_a_path_to_a_slice_is_a_path() -> None:
    assert cgroups.kind_of("user.slice/user-1000.slice") is LimitKind.CGROUP


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("backup", 'write "backup.service", with its suffix'),
        ("getty@tty1", 'write "getty@tty1.service"'),
        ("slice", 'write "slice.service"'),
        ("timer", 'write "timer.service"'),
        ("service", 'write "service.service"'),
        ("a?b", "a limit names one unit"),
        ("a[1]", "a limit names one unit"),
        ("a/b", 'cgroup = "a/b"'),
        ("backup.servce", 'did you mean "backup.service"?'),
        ("org.example.Backup", 'write "org.example.Backup.service"'),
        ("web.slice", 'write slice = "web.slice"'),
        ("backup.timer", 'name what it starts, "backup.service"'),
        ("ssh.socket", 'name what it starts, "ssh.service"'),
        ("getty@.service", 'name what is made of it, "getty@NAME.service"'),
        ("@tty1.service", "something stands before the @"),
        ("backup*.service", "a limit names one unit"),
        ("system.slice/backup.service", 'write a path as cgroup = "system.slice/backup.service"'),
        ("user@1000.service/app.slice", 'write a path as cgroup = "user@1000.service/app.slice"'),
        ("a/b.timer", 'write a path as cgroup = "a/b.timer"'),
        ("/system.slice/x.service", 'cgroup = "system.slice/x.service"'),
        ("back up.service", "as systemctl shows it"),
        ("été.service", "as systemctl shows it"),
        ("a\nb.service", "as systemctl shows it"),
        (".service", "as systemctl shows it"),
        ("", "as systemctl shows it"),
        ("x" * 250 + ".service", "at most 255 bytes"),
    ],
)
def test_what_is_no_unit_is_told_with_what_to_write(name: str, advice: str) -> None:
    with pytest.raises(Invalid) as found:
        cgroups.unit(name)
    assert advice in found.value.advice


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("web", 'write "web.slice", with its suffix'),
        ("backup.service", 'write unit = "backup.service"'),
        ("web.slice/x.service", 'write a path as cgroup = "web.slice/x.service"'),
        ("service", 'write "service.slice"'),
        ("slice", 'write "slice.slice"'),
        ("a@b", "as systemctl shows it"),
        ("x.timer", 'write "x.timer.slice"'),
        ("a-.slice", "within"),
        ("x" * 250 + ".slice", "at most 255 bytes"),
        ("-.slice", "limit an interface instead"),
        ("-a.slice", 'a dash stands for "within"'),
        ("a--b.slice", "within"),
        ("a@b.slice", "within"),
        ("w*.slice", "a limit names one unit"),
        ("a/b.slice", 'cgroup = "a/b.slice"'),
        ("", "as systemctl shows it"),
    ],
)
def test_what_is_no_slice_is_told_with_what_to_write(name: str, advice: str) -> None:
    with pytest.raises(Invalid) as found:
        cgroups.slice_name(name)
    assert advice in found.value.advice


@pytest.mark.parametrize(
    ("path", "summary", "advice"),
    [
        ("/system.slice/x.service", "is absolute", 'write "system.slice/x.service"'),
        ("/sys/fs/cgroup/system.slice/x", "is absolute", 'write "system.slice/x"'),
        ("/sys/fs/cgroup/unified/a/b", "is absolute", 'write "a/b"'),
        ("/sys/fs/cgroup", "is absolute", 'write "system.slice/x.service"'),
        ("/a/../../etc", "is absolute", "without .."),
        ("../init.scope", "leads out of the hierarchy", "without .."),
        ("a/../../b", "leads out of the hierarchy", "without .."),
        ("a/..", "leads out of the hierarchy", "without .."),
        ("", "is everything on this machine", "system.slice"),
        (".", "is everything on this machine", "system.slice"),
        ("a//b", "is not a plain path", 'write "a/b"'),
        ("a/./b", "is not a plain path", 'write "a/b"'),
        ("a/./b/", "is not a plain path", 'write "a/b"'),
        ("a\nb", "control characters", "one line"),
        ("a\0b", "control characters", "one line"),
        ('a"b', "a double quote or a dollar sign", "nftables"),
        ("a$b", "a double quote or a dollar sign", "nftables"),
        ("x" * 256, "longer than 255 bytes", "no cgroup"),
        ("x/" * 2100 + "x", "bytes", "4095"),
    ],
)
def test_what_is_outside_of_the_hierarchy_is_told(path: str, summary: str, advice: str) -> None:
    with pytest.raises(Invalid) as found:
        cgroups.cgroup(path)
    assert summary in found.value.summary
    assert advice in found.value.advice


@given(st.text(max_size=60))
def test_what_is_accepted_stays_below_the_mount(text: str) -> None:
    for parse in cgroups.PARSERS.values():
        try:
            accepted = parse(text)
        except Invalid:
            continue
        assert accepted == text
        assert not {"..", ".", ""} & set(text.split("/"))
        assert text.isprintable()
        assert '"' not in text


@pytest.mark.parametrize("kind", LimitKind)
def test_the_examples_are_right(kind: LimitKind) -> None:
    name, _, value = cgroups.example(kind).partition(" = ")
    assert name == kind
    assert cgroups.PARSERS[kind](value.strip('"'))
