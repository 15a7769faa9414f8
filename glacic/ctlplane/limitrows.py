"""What the service answers about bandwidth limits: requests of the control socket, checked, and rows for people.

The state is ctlplane/limiting's; here is only what is asked and how it is said. Arguments come from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from glacic.config.cgroups import PARSERS
from glacic.config.decode_limits import RESERVED, limit_name, one_interface
from glacic.config.model import DefaultLimit, Limit, LimitEngine, LimitKind, Traffic
from glacic.config.rates import RATE_MAX, rate_text
from glacic.config.source import did_you_mean
from glacic.config.validate_limits import wrong
from glacic.config.values import Invalid
from glacic.ctlplane.limiting import Limiting, Standing
from glacic.errors import GlacicError, UsageError
from glacic.shaping import probe
from glacic.shaping.choose import choose
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted

E = TypeVar("E", bound=StrEnum)

MAX_LIMITS = 1_000  # set at run time
MAX_NAME = 128  # characters
MAX_TARGET = 1_024
DIRECTIONS = (UPLOAD, DOWNLOAD)

CANNOT = ("traffic on the loopback interface is never limited",)
CANNOT_BY_CGROUP = (
    "a socket-activated service's first sockets are counted for whoever made them, systemd itself",
    "sockets that were open before their process came into the cgroup stay without a limit",
    "forwarded traffic has no cgroup, so containers and virtual machines behind a bridge are not limited",
)
_THROWN = "what is over the rate is thrown away, not delayed; after a pause {} passes at once"
CANNOT_OF = {  # by the engine that holds it
    "nft": (
        "incoming ICMP and packets of raw sockets have no socket that nftables finds: they pass",
        _THROWN.format("one and a quarter seconds' worth, at least 128 KiB,"),
    ),
    "bpf": (_THROWN.format("0.3 seconds' worth"),),
    "shape": (
        "an interface is limited that has a default route, or the one that is named: traffic over others passes",
        "downloads on a connection that this machine has sent nothing on pass, and so do later fragments of a datagram",
    ),
    "police": (
        "it limits everything on its interface, whoever sends it, and what is forwarded: not this cgroup alone",
        _THROWN.format("a quarter of a second's worth, at least 128 KiB,"),
    ),
}


class LimitRequests:
    """The handlers of one service."""

    def __init__(self, limiting: Limiting, state_dir: Path) -> None:
        self._limiting = limiting
        self._state_dir = state_dir

    async def list(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """Every limit, whether it is in force, and where not, why."""
        limiting = self._limiting
        return {
            "limits": [self._row(one) for one in await limiting.standing()],
            "mount": str(limiting.mount) if limiting.mount is not None else None,
            "default": _default(limiting.default_limit),
            "trouble": limiting.trouble,
        }

    async def show(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """One limit, and what it cannot do."""
        return await self._shown(_name(args))

    async def set(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """A new limit, or another one in the place of one: what is not said stays. Until the service starts again."""
        name = _name(args)
        before = self._limiting.wanted().get(name)
        if before is None and len(self._limiting.wanted()) >= MAX_LIMITS:
            raise UsageError(f"there are {MAX_LIMITS} limits already; write more into the configuration")
        await self._limiting.set(_limit(name, args, before))
        return await self._shown(name)

    async def clear(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """No such limit until the service starts again."""
        name = self._called(_name(args))
        if name not in self._limiting.wanted():
            raise await self._unknown(name)
        await self._limiting.clear(name)
        return {"cleared": name}

    async def engines(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """What this kernel can do, as far as it was tried, and how true it was when that was measured."""
        measured = {
            (row["engine"], row["direction"]): row["accuracy"] for row in probe.kept(self._state_dir / probe.FILE)
        }
        return {
            "engines": [
                {
                    "engine": engine,
                    "direction": direction,
                    "available": not missing,
                    "missing": missing or None,
                    "per_cgroup": engine != LimitEngine.POLICE,
                    "accuracy": measured.get((engine, direction)),
                }
                for (engine, direction), missing in self._limiting.available.items()
            ]
        }

    async def watch(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """The counters now. at_s: of a clock that only goes on, to work out rates by."""
        standing = await self._limiting.standing()
        return {"at_s": time.monotonic(), "limits": [self._row(one) for one in standing if one.item is not None]}

    async def _shown(self, name: str) -> dict[str, Any]:
        name = self._called(name)
        for one in await self._limiting.standing():
            if one.limit.name in (name, RESERVED + name):
                row = self._row(one)
                engines = dict.fromkeys((row["engine_upload"], row["engine_download"]))
                more = dict.fromkeys(text for engine in engines for text in CANNOT_OF.get(engine, ()))
                each = CANNOT_BY_CGROUP if one.limit.engine is not LimitEngine.POLICE else ()
                return {**row, "cannot": [*each, *CANNOT, *more]}
        raise await self._unknown(name)

    def _called(self, name: str) -> str:
        """The name of a limit that is named by what it limits; any other name as it is."""
        wanted = self._limiting.wanted()
        return name if name in wanted else next((each for each, one in wanted.items() if one.target == name), name)

    async def _unknown(self, name: str) -> GlacicError:
        """What to say where no limit has this name; or one that cannot be cleared."""
        rows = [one.limit for one in await self._limiting.standing()]
        found = next((limit for limit in rows if limit.name in (name, RESERVED + name)), None)
        if found is not None:
            name = found.name
            advice = f"set one for {found.target}, or take default_limit out of the configuration"
            return GlacicError(f"{name} is what default_limit makes: {advice}")
        meant = did_you_mean(name, [limit.name for limit in rows])
        return GlacicError(f"no such limit: {name}; {meant or '`glacic limits list` shows them'}")

    def _row(self, one: Standing) -> dict[str, Any]:
        limit, item = one.limit, one.item
        chosen = choose(limit.engine, self._limiting.available)
        engines = {UPLOAD: limit.upload and chosen.upload, DOWNLOAD: limit.download and chosen.download}
        held = all(getattr(chosen, direction) or not getattr(limit, direction) for direction in DIRECTIONS)
        return {
            "name": limit.name,
            "kind": limit.kind.value,
            "target": limit.target,
            "upload": limit.upload or None,
            "download": limit.download or None,
            "upload_text": rate_text(limit.upload) if limit.upload else None,
            "download_text": rate_text(limit.download) if limit.download else None,
            "engine": limit.engine.value,
            "engine_upload": engines[UPLOAD] or None,
            "engine_download": engines[DOWNLOAD] or None,
            "why": chosen.why if not held or item is not None else one.why_waiting,
            "traffic": limit.traffic.value,
            "interface": limit.interface or None,
            "description": limit.description,
            "origin": one.origin,
            "state": "active" if item is not None and held else "waiting",
            "cgroup": item.cgroup.path if item is not None else None,
            "cgroup_id": item.cgroup.id if item is not None else None,
            "level": item.cgroup.level if item is not None else None,
            **{key: value for direction in DIRECTIONS for key, value in _counted(one, direction).items()},
        }


def _counted(one: Standing, direction: str) -> dict[str, int]:
    counted = one.counted.get(direction, Counted())
    return {
        f"bytes_{direction}": counted.bytes,
        f"packets_{direction}": counted.packets,
        f"dropped_bytes_{direction}": counted.dropped_bytes,
        f"dropped_packets_{direction}": counted.dropped_packets,
    }


def _default(default: DefaultLimit | None) -> dict[str, Any] | None:
    if default is None:
        return None
    return {
        "per": "unit",
        "upload": default.upload or None,
        "download": default.download or None,
        "upload_text": rate_text(default.upload) if default.upload else None,
        "download_text": rate_text(default.download) if default.download else None,
        "engine": default.engine.value,
        "traffic": default.traffic.value,
        "interface": default.interface or None,
    }


def _limit(name: str, args: dict[str, Any], before: Limit | None) -> Limit:
    """The limit that a request asks for. Raises UsageError naming what cannot be."""
    if known := set(args) - {"name", "kind", "target", "upload", "download", "engine", "traffic", "interface"}:
        raise UsageError(f"a limit has no {sorted(map(str, known))[0]!r}")
    limit = Limit(
        name=name,
        kind=_one_of(args, "kind", LimitKind, before.kind if before is not None else LimitKind.UNIT),
        target=_target(args, before.target if before is not None else ""),
        upload=_rate(args, "upload", before.upload if before is not None else 0),
        download=_rate(args, "download", before.download if before is not None else 0),
        engine=_one_of(args, "engine", LimitEngine, before.engine if before is not None else LimitEngine.AUTO),
        traffic=_one_of(args, "traffic", Traffic, before.traffic if before is not None else Traffic.ALL),
        interface=_text(args, "interface", before.interface if before is not None else "", 15),
        description=before.description if before is not None else "",
    )
    if not limit.upload and not limit.download:
        raise UsageError(f'limit "{name}" limits nothing: say upload, download or both; `glacic limits clear` ends it')
    _read(limit_name, name)
    _read(PARSERS[limit.kind], limit.target)
    if limit.interface:
        _read(one_interface, limit.interface)
    if error := wrong(limit):
        raise UsageError(error)
    return limit


def _read(parse: Callable[[str], str], text: str) -> None:
    """A limit that is set is one that could stand in the file."""
    try:
        parse(text)
    except Invalid as invalid:
        raise UsageError(f"{invalid.summary}: {invalid.advice}") from None


def _name(args: dict[str, Any]) -> str:
    name = _text(args, "name", "", MAX_NAME)
    if not name:
        raise UsageError("which limit? say its name")
    return name


def _target(args: dict[str, Any], default: str) -> str:
    target = _text(args, "target", default, MAX_TARGET)
    if not target:
        raise UsageError("what is to be limited? say a unit, a slice or a cgroup")
    return target


def _text(args: dict[str, Any], key: str, default: str, longest: int) -> str:
    value = args.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or not value.isprintable() or len(value) > longest:
        raise UsageError(f"{key} must be plain text of at most {longest} characters")
    return value


def _rate(args: dict[str, Any], key: str, default: int) -> int:
    value = args.get(key, default)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= RATE_MAX:
        raise UsageError(f"{key} must be a whole number of bytes per second, at most {RATE_MAX}")
    return value


def _one_of(args: dict[str, Any], key: str, kind: type[E], default: E) -> E:
    value = args.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or value not in {each.value for each in kind}:
        raise UsageError(f"{key} must be one of {', '.join(each.value for each in kind)}")
    return kind(value)
