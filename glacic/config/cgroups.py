"""Step 3 of road 1, the small half of limits: the grammars of what a limit names.

    unit      "backup.service"                    a service, scope or mount, as systemctl shows it
    slice     "web.slice"
    cgroup    "system.slice/backup.service"       a path below the cgroup2 mount, without a slash before it

Every function returns the name or raises Invalid. Whether there is such a unit is nobody's business here: it may come
later.
"""

from __future__ import annotations

import re

from glacic.config.model import LimitKind
from glacic.config.source import closest, listed
from glacic.config.values import Invalid, line_of_text

UNIT_MAX = 255  # bytes: UNIT_NAME_MAX of systemd, basic/unit-name.h
PATH_MAX = 4095  # bytes: PATH_MAX - 1, linux/limits.h
PART_MAX = 255  # bytes: NAME_MAX, linux/limits.h
MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")  # where cgroup2 is, on hybrid and on pure hosts

WITH_PROCESSES = ("service", "scope", "mount")  # a mount has those of its file system in user space
_WITHOUT = ("automount", "device", "path", "socket", "swap", "target", "timer")
VALID = re.compile(r"[A-Za-z0-9:_.\\@-]+", re.ASCII)  # VALID_CHARS of systemd, basic/unit-name.c


def unit(text: str) -> str:
    """The name of a unit that has processes."""
    _short(text)
    if "/" in text:
        raise Invalid(f'"{text}" is not the name of a unit', _unit_advice(text))
    stem, dot, suffix = text.rpartition(".")
    if suffix == "slice" and dot:
        raise Invalid(f'"{text}" is a slice', f'write slice = "{text}"')
    if suffix in _WITHOUT and dot:
        raise Invalid(f'a {suffix} has no processes: "{text}"', f'name what it starts, "{stem}.service"')
    if not dot or suffix not in WITH_PROCESSES:
        if VALID.fullmatch(text):
            meant = closest(suffix, WITH_PROCESSES) if dot else []
            advice = f'did you mean "{stem}.{meant[0]}"?' if meant else f'write "{text}.service", with its suffix'
            raise Invalid(f'"{text}" is not the name of a unit', advice)
        raise Invalid(f'"{text}" is not the name of a unit', _unit_advice(text))
    return _unit_name(text, stem)


def slice_name(text: str) -> str:
    """The name of a slice."""
    _short(text)
    if "/" in text:
        raise Invalid(f'"{text}" is not the name of a slice', _unit_advice(text))
    stem, dot, suffix = text.rpartition(".")
    if not dot or suffix != "slice":
        if dot and suffix in WITH_PROCESSES:
            raise Invalid(f'"{text}" is no slice', f'write unit = "{text}"')
        known = VALID.fullmatch(text) is not None and "@" not in text
        raise Invalid(
            f'"{text}" is not the name of a slice',
            f'write "{text}.slice", with its suffix' if known else _unit_advice(text),
        )
    if text == "-.slice":
        raise Invalid('"-.slice" is everything on this machine', "limit an interface instead, or write default_limit")
    if stem.startswith("-") or stem.endswith("-") or "--" in stem or "@" in stem:  # slice_name_is_valid of systemd
        raise Invalid(f'"{text}" is not the name of a slice', 'a dash stands for "within": "a-b.slice" is in "a.slice"')
    return _unit_name(text, stem)


def _unit_name(text: str, stem: str) -> str:
    if not stem or not VALID.fullmatch(text):
        raise Invalid(f'"{text}" is not the name of a unit', _unit_advice(text))
    if stem.endswith("@"):
        raise Invalid(
            f'"{text}" is a template',
            f'name what is made of it, "{stem}NAME{text[len(stem) :]}", or write default_limit',
        )
    if stem.startswith("@"):
        raise Invalid(f'"{text}" is not the name of a unit', "something stands before the @")
    return text


def _short(text: str) -> None:
    if len(text.encode("utf-8", "replace")) > UNIT_MAX:
        raise Invalid(f"a unit's name of {len(text)} characters", f"at most {UNIT_MAX} bytes fit")


def _unit_advice(text: str) -> str:
    if "*" in text or "?" in text or "[" in text:
        return "a limit names one unit: write one for each, a slice that they are in, or default_limit"
    if "/" in text:
        return f'write a path as cgroup = "{text.strip("/")}"'
    return 'write it as systemctl shows it, "backup.service": letters, digits and ":-_.@\\"'


def cgroup(text: str) -> str:
    """A path below the cgroup2 mount."""
    line_of_text(text, PATH_MAX)
    if any(char in text for char in '"$'):
        raise Invalid(f'a double quote or a dollar sign in "{text}"', "nftables has no way to write it")
    if text.startswith("/"):
        raise Invalid(f'"{text}" is absolute', _relative(text))
    parts = text.split("/")
    if ".." in parts:
        raise Invalid(f'"{text}" leads out of the hierarchy', "write the path without ..")
    if text in {"", "."}:
        raise Invalid("this cgroup is everything on this machine", 'write a path such as "system.slice/x.service"')
    if "." in parts or "" in parts:
        raise Invalid(f'"{text}" is not a plain path', f'write "{"/".join(p for p in parts if p not in {"", "."})}"')
    if any(len(part.encode()) > PART_MAX for part in parts):
        raise Invalid(f"a part of this path is longer than {PART_MAX} bytes", "no cgroup can have that name")
    return text


def _relative(text: str) -> str:
    """What to write for an absolute path: it, without the mount before it."""
    if ".." in text.split("/"):
        return "write a path below the cgroup2 mount, without .. and without a slash before it"
    for mount in MOUNTS:
        if text == mount or text.startswith(f"{mount}/"):
            text = text[len(mount) :]
            break
    rest = "/".join(part for part in text.split("/") if part not in {"", "."})
    return f'it is relative to the cgroup2 mount: write "{rest or "system.slice/x.service"}"'


PARSERS = {LimitKind.UNIT: unit, LimitKind.SLICE: slice_name, LimitKind.CGROUP: cgroup}


def kind_of(name: str) -> LimitKind:
    """What a name on its own most likely means."""
    if name.endswith(".slice") and "/" not in name:
        return LimitKind.SLICE
    return LimitKind.CGROUP if "/" in name else LimitKind.UNIT


def example(kind: LimitKind) -> str:
    """An attribute as it is written."""
    return {
        LimitKind.UNIT: 'unit = "backup.service"',
        LimitKind.SLICE: 'slice = "web.slice"',
        LimitKind.CGROUP: 'cgroup = "system.slice/backup.service"',
    }[kind]


KINDS = listed([str(kind) for kind in LimitKind])
