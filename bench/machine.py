"""What figures were measured on: processor, cores, memory, kernel, versions. No names of hosts, users or paths."""
# ruff: noqa: S603 -- asks tools for their versions, as an administrator's shell finds them

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path

from bench import build
from glacic.ctlplane.probes import has_nft_queue
from glacic.errors import GlacicError


def described() -> dict[str, str]:
    """What it is -> in words, for a table; what cannot be found out is "unknown"."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "virtualized": _virtualized(),
        "frequency governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
        "kernel": f"{platform.release()} {platform.machine()}",
        "nftables' queue statement": _queue_statement(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "nft": _version(["nft", "--version"]),
        "iptables": _version(["iptables-nft", "--version"]),
        "C compiler": _version([*build.compiler(), "--version"]),
    }


def _processor() -> str:
    model = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return model[1] if model else platform.machine()


def _memory() -> str:
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return f"{int(total[1]) / (1 << 20):.0f} GiB" if total else "unknown"


def _virtualized() -> str:
    return "yes" if re.search(r"^flags\s*:.*\bhypervisor\b", _read("/proc/cpuinfo"), re.MULTILINE) else "no"


def _queue_statement() -> str:
    try:
        return "yes" if has_nft_queue() else "no: packets are handed to the queue by iptables-nft"
    except (GlacicError, OSError):
        return "unknown"


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "not there"
    lines = done.stdout.splitlines()
    return lines[0] if lines else "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
