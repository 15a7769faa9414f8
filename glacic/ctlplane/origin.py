"""Where a person sits who changes something: what their own command says, and what the kernel says of its process.

The first is hearsay and marked so; the second is read from /proc while the client waits for its answer, and left out
where /proc does not show it. Refuses to look anything up in a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from glacic.config.source import printable

MAX_SOURCE = 300  # characters of a source
MAX_ANCESTORS = 10

_SSH = re.compile(r"[0-9A-Fa-f.:%\w]{2,60} [0-9]{1,5} [0-9A-Fa-f.:%\w]{2,60} [0-9]{1,5}")
_UNSET = 0xFFFFFFFF  # of loginuid: nobody logged in (linux/audit.h, AUDIT_UID_UNSET)


def ssh_connection(environment: Mapping[str, str] | None = None, proc: Path = Path("/proc")) -> str:
    """SSH_CONNECTION, `CLIENT PORT SERVER PORT`: this process's own, or, since sudo takes it away, that of the nearest
    ancestor which has one; "" where there is none, or it cannot be read or is not of that form."""
    own = (os.environ if environment is None else environment).get("SSH_CONNECTION", "")
    if own:
        return own if _SSH.fullmatch(own) else ""
    pid = os.getppid()
    for _ in range(MAX_ANCESTORS):
        if pid <= 1:
            break
        try:
            words = (proc / str(pid) / "environ").read_bytes().split(b"\0")
            stat = (proc / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            break
        for word in words:
            if word.startswith(b"SSH_CONNECTION="):
                text = word.partition(b"=")[2].decode("ascii", "replace")
                return text if _SSH.fullmatch(text) else ""
        pid = int(stat.rpartition(")")[2].split()[1])
    return ""


def told() -> str:
    """What a command says of its own place: `ssh CLIENT PORT SERVER PORT, tty NAME`."""
    words = []
    if connection := ssh_connection():
        words.append(f"ssh {connection}")
    for descriptor in (0, 1, 2):
        try:
            words.append(f"tty {os.ttyname(descriptor).removeprefix('/dev/')}")
            break
        except OSError:
            continue
    return ", ".join(words)


def found_of(pid: int, hearsay: str, proc: Path = Path("/proc")) -> str:
    """`HEARSAY (told); login 1000; user.slice/.../session-3.scope`: what was told, then what /proc says of a
    process."""
    parts = [f"{printable(hearsay)[: MAX_SOURCE // 2]} (told)"] if hearsay else []
    try:
        login = int((proc / str(pid) / "loginuid").read_text())
        if login != _UNSET:
            parts.append(f"login uid {login}")
    except (OSError, ValueError):
        pass  # a kernel without it, or a process that is hidden from us or gone
    try:
        line = (proc / str(pid) / "cgroup").read_text(errors="replace").strip().rpartition("\n")[2]
        if unit := line.rpartition("::")[2].strip("/"):
            parts.append(f"cgroup {printable(unit)}")
    except OSError:
        pass  # the same
    return "; ".join(parts)[:MAX_SOURCE]
