"""Limits, step 3: which engine holds a limit, per direction, and why. Pure.

What this kernel can do comes in as a table: (engine, direction) -> what is missing, "" where nothing is. Who filled it
has probed; nothing is looked at here. Refuses to put another engine in the place of one that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glacic.config.model import LimitEngine
from glacic.shaping.engine import DOWNLOAD, UPLOAD

Available = Mapping[tuple[str, str], str]

NFT_ALONE: Available = {("nft", UPLOAD): "", ("nft", DOWNLOAD): ""}
NOT_TRIED = "not tried here yet; as root, glacic limits engines --keep does"
_AUTO = (LimitEngine.NFT, LimitEngine.BPF)  # in this order; neither takes an interface from anybody


@dataclass(frozen=True, slots=True)
class Chosen:
    """upload, download: the engine's name, "" where none can do it. why: for people."""

    upload: str
    download: str
    why: str


def available(rows: Iterable[Mapping[str, Any]], engines: Collection[str]) -> Available:
    """What these engines can do, by the rows of an earlier probe: engine, direction, available, missing. An engine that
    was not probed is not there, but nft, which then shows itself what it can do."""
    tried = {(str(row["engine"]), str(row["direction"])): row for row in rows}
    found: dict[tuple[str, str], str] = {}
    for key in ((engine, direction) for engine in engines for direction in (UPLOAD, DOWNLOAD)):
        if (row := tried.get(key)) is not None:
            found[key] = "" if row["available"] is True else str(row["missing"] or "does not work here")
        else:
            found[key] = "" if key in NFT_ALONE else NOT_TRIED
    return found


def choose(engine: LimitEngine, available: Available) -> Chosen:
    """The engine of each direction. One that is asked for and was not tried is taken: it says itself what it cannot."""
    if engine != LimitEngine.AUTO:
        missing_of = {direction: _missing(engine, direction, available) for direction in (UPLOAD, DOWNLOAD)}
        lacks = {direction: "" if missing == NOT_TRIED else missing for direction, missing in missing_of.items()}
        names = {direction: "" if missing else engine.value for direction, missing in lacks.items()}
        reasons = dict.fromkeys(f"{engine}: {missing}" for missing in lacks.values() if missing)
        return Chosen(names[UPLOAD], names[DOWNLOAD], "; ".join(reasons) or "asked for")
    found = {
        direction: next((one.value for one in _AUTO if not _missing(one, direction, available)), "")
        for direction in (UPLOAD, DOWNLOAD)
    }
    if not all(found.values()):
        reasons = dict.fromkeys(
            f"{one}: {missing}"
            for one in _AUTO
            for direction, name in found.items()
            if not name and (missing := _missing(one, direction, available))
        )
        return Chosen(found[UPLOAD], found[DOWNLOAD], "no engine of this kernel can: " + "; ".join(reasons))
    return Chosen(found[UPLOAD], found[DOWNLOAD], _why(found[UPLOAD], found[DOWNLOAD]))


def _missing(engine: LimitEngine, direction: str, available: Available) -> str:
    return available.get((engine.value, direction), "not in this service")


def _why(upload: str, download: str) -> str:
    if upload == download == LimitEngine.NFT:
        return "auto: nft works here, and takes no interface and no program"
    return f"auto: upload by {upload}, download by {download}, the first that works here"
