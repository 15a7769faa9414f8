"""Step 4 of road 1, continued: what the attributes of one limit have to do with each other, and limits with each other.

Whether there is such a unit, and which engine this kernel has, is not asked here: limits of units that do not run yet
are kept. `resembling` tells of names that look like a slip, for who knows the machine's units.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise

from glacic.config import cgroups
from glacic.config.check import Check
from glacic.config.decode_limits import RATES
from glacic.config.model import LIMIT_CT_MARK, Config, DefaultLimit, Limit, LimitEngine, LimitKind, Traffic
from glacic.config.rates import SLOW, bytes_text, why_rough
from glacic.config.reader import HEADER, Report
from glacic.config.source import ERROR, NOTE, Diagnostic, Source, Span, listed

# Bytes per second that engines of tc can hold: tables of times in units of 64 ns (net/sched/sch_api.c) run over below
# the first; struct tc_ratespec has 32 bits for the second.
_TC_MIN, _POLICE_MAX = 1 << 10, (1 << 32) - 1
SLIP = 0.75  # how much alike two names are where one is a slip of the other: difflib's ratio, without the suffix
ON_INTERFACES = (LimitEngine.SHAPE, LimitEngine.POLICE)


def validate_limits(config: Config, report: Report) -> None:
    """Add to `report` what is wrong with the limits, and the notes. That names are unique is validate.py's."""
    for limit in config.limits:
        _alone(limit, report)
    _same_target(config.limits, report)
    _same_interface(config.limits, report)
    marks = config.rule_learning.offload_bits & LIMIT_CT_MARK
    for each in (*config.limits, *((config.default_limit,) if config.default_limit is not None else ())):
        if marks and each.engine is LimitEngine.SHAPE and each.download:
            _mark(each, config.rule_learning.spans["offload_mark"], report)
    if config.default_limit is not None:
        _rates(config.default_limit, "default_limit", report)
        _interface(config.default_limit, report)
        _never_police(config.default_limit, report)


def wrong(limit: Limit) -> str:
    """What a file would be told of a limit that stands in none, the first error with its advice; "" where nothing."""
    written = {"upload": limit.upload, "download": limit.download, "interface": limit.interface}
    names = (HEADER, limit.kind, "engine", "traffic", *(name for name, value in written.items() if value))
    report = Report()
    _alone(replace(limit, spans={name: Source("", name).span(0, len(name)) for name in names}), report)
    errors = (found for found in report.diagnostics if found.severity == ERROR)
    return next((f"{found.summary}: {found.advice}" for found in errors), "")


def clash(one: Limit, other: Limit) -> str:
    """What both of them limit, so that only one of them can be; "" where nothing."""
    if system_unit(one) == system_unit(other):
        return other.target
    both = one.engine is other.engine is LimitEngine.POLICE and one.interface == other.interface
    return f"all of {other.interface}" if both else ""


def _alone(limit: Limit, report: Report) -> None:
    """What can be said of one limit without the others."""
    _target(limit, Check(limit.spans, report))
    _rates(limit, f'limit "{limit.name}"', report)
    _interface(limit, report)
    _police(limit, report)


def _target(limit: Limit, check: Check) -> None:
    """Exactly one of unit, slice and cgroup."""
    written = sorted((kind for kind in LimitKind if kind in limit.spans), key=lambda kind: limit.spans[kind].start)
    if not written:
        advice = f"write {cgroups.example(LimitKind.UNIT)}, or one of {cgroups.KINDS}"
        check.report.error(limit.spans[HEADER], f'limit "{limit.name}" names nothing that it limits', advice)
    for first, later in pairwise(written):
        check.error(later, f"{first} and {later} are both written", "a limit has one target: write a limit for each")


def _rates(limit: Limit | DefaultLimit, where: str, report: Report) -> None:
    if not limit.spans.keys() & set(RATES):
        report.error(
            limit.spans[HEADER], f"{where} limits nothing", 'write upload = "5 mbit", download = "2 MiB/s" or both'
        )
    for name in RATES:
        rate: int = getattr(limit, name)
        if 0 < rate < _TC_MIN and limit.engine in ON_INTERFACES:
            summary = f"engine {limit.engine} cannot hold less than {bytes_text(_TC_MIN)}/s"
            report.error(limit.spans[name], summary, "write more, or another engine")
        elif rate > _POLICE_MAX and limit.engine is LimitEngine.POLICE:
            report.error(
                limit.spans[name], "engine police cannot hold 4 GiB/s or more", "write less, or another engine"
            )
        elif 0 < rate < SLOW:
            report.warn(
                limit.spans[name], f"{name} is less than {bytes_text(SLOW)}/s: it is held roughly", why_rough(rate)
            )


def _interface(limit: Limit | DefaultLimit, report: Report) -> None:
    """Only two engines work on an interface, and auto may choose another."""
    check = Check(limit.spans, report)
    if not check.written("interface") or not check.usable("engine") or limit.engine in ON_INTERFACES:
        return
    advice = f"leave it out, or write engine = {listed(map(str, ON_INTERFACES))}"
    check.error("interface", f"interface cannot apply to engine {limit.engine}", advice)


def _mark(limit: Limit | DefaultLimit, offload_mark: Span, report: Report) -> None:
    """Both would write the same bits of a connection's mark."""
    summary = f"engine shape tells downloads by the bits {LIMIT_CT_MARK:#010x} of the connection mark"
    span = limit.spans["engine"]
    advice = f"offload_mark of {offload_mark.seen_from(span)} has some of them: write others there, or another engine"
    report.error(span, summary, advice)


def _police(limit: Limit, report: Report) -> None:
    """It limits an interface with everybody on it, so that it has to be named, and nothing else can be meant."""
    check = Check(limit.spans, report)
    if limit.engine is not LimitEngine.POLICE:
        return
    if "interface" not in limit.spans:
        advice = 'it limits everybody on an interface: if that is wanted, write interface = "eth0"'
        check.error("engine", "engine police needs interface", advice)
    elif limit.interface:
        target = limit.target or "this cgroup"
        summary = f"engine police limits all of {limit.interface}, not {target} alone"
        report.note(limit.spans["engine"], summary, "engines nft, bpf and shape limit one cgroup")
    if limit.traffic is not Traffic.ALL:
        check.error(
            "traffic", f'traffic = "{limit.traffic}" cannot apply to engine police', "it counts all of an interface"
        )


def _never_police(limit: DefaultLimit, report: Report) -> None:
    if limit.engine is LimitEngine.POLICE:
        advice = "it limits an interface, not units: write nft, bpf or shape, or leave engine out"
        report.error(limit.spans["engine"], "default_limit cannot use engine police", advice)


# Limits among each other


def _same_target(limits: Collection[Limit], report: Report) -> None:
    """Two limits of one cgroup: which one holds would be chance."""
    first: dict[str, Limit] = {}
    for limit in limits:
        if not limit.target:
            continue
        key = system_unit(limit)
        if key in first:
            span = limit.spans[limit.kind]
            advice = f'merge it into limit "{first[key].name}" of {first[key].spans[HEADER].seen_from(span)}'
            report.error(span, f"a second limit of {limit.target}", advice)
        else:
            first[key] = limit


def system_unit(limit: Limit) -> str:
    """What tells two targets apart: a path in which there are only slices before the last part is a unit's or a
    slice's own, and is known by that name, as systemd gives it to one cgroup only. Any other path stands for itself."""
    *above, last = limit.target.split("/")
    named = last.rpartition(".")[2] in ("slice", *cgroups.WITH_PROCESSES)
    return last if named and all(part.endswith(".slice") for part in above) else limit.target


def _same_interface(limits: Collection[Limit], report: Report) -> None:
    """Two of engine police on one interface."""
    first: dict[str, Limit] = {}
    for limit in limits:
        if limit.engine is not LimitEngine.POLICE or not limit.interface:
            continue
        if limit.interface in first:
            span = limit.spans["interface"]
            other = first[limit.interface]
            advice = f'merge it into limit "{other.name}" of {other.spans[HEADER].seen_from(span)}'
            report.error(span, f"a second limit of all of {limit.interface}", advice)
        first.setdefault(limit.interface, limit)


# What a machine knows of its units


def resembling(config: Config, units: Collection[str]) -> list[Diagnostic]:
    """Notes on units and slices that are none of `units`, the names that this machine knows, but look like one.

    A name that looks like none of them may be of a unit to come: nothing is said.
    """
    found = []
    for limit in config.limits:
        if limit.kind is LimitKind.CGROUP:
            continue
        if meant := alike(limit.target, units):
            span = limit.spans[limit.kind]
            advice = f'did you mean "{meant}"? The limit waits until there is a {limit.target}'
            found.append(Diagnostic(span, f"this machine has no unit {limit.target}", advice, NOTE))
    return found


def alike(target: str, units: Collection[str]) -> str:
    """The unit that is most likely meant by one that is not there; "" where it is there, or resembles none.

    An instance is there where its template is."""
    stem, at, rest = target.partition("@")
    if target in units or (at and f"{stem}@.{rest.rpartition('.')[2]}" in units):
        return ""
    stem, _, suffix = target.rpartition(".")
    stems = {name.removesuffix(f".{suffix}") for name in units if name.endswith(f".{suffix}") and "@." not in name}
    close = difflib.get_close_matches(stem, sorted(stems), n=1, cutoff=SLIP)
    return f"{close[0]}.{suffix}" if close else ""
