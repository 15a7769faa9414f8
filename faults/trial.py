"""One trial: traffic of every kind, then the fault, then its end, and everything that was seen meanwhile as a Case.

    before     traffic goes on; what is learned now must be known afterwards
    begin      the fault is made
    end        it is ended, where it does not end by itself (`heal`)
    back       `is_back` says so, and new flows are answered again: the time to recover ends here
    after      what goes on now must be as before

Packets are counted from begin to back. Refuses to know the faults: faults/rows does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from faults.bed import PATIENCE_S, PER_S, SLOWER, Around, Bed, Log, StatusWatch, Streams, bed, kernel
from faults.result import EITHER, PASS, STOP, Case, Count
from glacic.errors import GlacicError, LabError
from glacic.lab.home import CAMERA_MAC, LAPTOP_MAC

BEFORE_S = 1.5 * SLOWER
AFTER_S = 1.0 * SLOWER
GROUP_COMMIT_S = 0.2  # learning/writer.py INTERVAL_S: what a crash may cost
RACE_S = 0.01 * SLOWER  # a signal takes effect when the process is next seen by its processor
_NEW = {"unknown": LAPTOP_MAC, "quiet": CAMERA_MAC}  # kinds whose every packet is a new flow -> their source
_ALWAYS = {"learned": PASS, "established": PASS, "denied": STOP, "outside": STOP, "to the router": STOP}

Learned = set[tuple[str, int]]  # source, port
Measure = Callable[[Bed, Case], tuple[dict[str, str], list[str]]]


def is_running(bed_: Bed) -> bool:
    """Whether `status` says so."""
    try:
        return bool(bed_.glacic.call("status")["state"] == "running")
    except GlacicError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to do and what was promised.

    begin, end: make the fault and take it away; end None: it ends by itself. promised: what kinds of packets get
    meanwhile, besides those that always get the same. tolerated: how many of a kind may be lost (what the queue held).
    known_s: how old a learned flow must be so that it may not be lost; None: nothing is said. measure: what else there
    is to see, called once it is back: more numbers and more broken promises. around: see bed().
    """

    setting: str
    configuration: str
    begin: Callable[[Bed], object]
    end: Callable[[Bed], object] | None = None
    lasts_s: float = 2.0
    promised: Mapping[str, str] = field(default_factory=dict)
    tolerated: Mapping[str, int] = field(default_factory=dict)
    is_back: Callable[[Bed], bool] = is_running
    known_s: float | None = GROUP_COMMIT_S
    troubles_at_most: int = 3
    measure: Measure | None = None
    around: Around = lambda _: contextlib.nullcontext()
    per_s: float = PER_S
    not_after: tuple[str, ...] = ()  # kinds that are not what they were, when it is over
    other_flows: int = 0  # that the fault itself makes, each with its line in the log


def run(trial: Trial) -> Case:
    """The case. Raises LabError where nothing comes back."""
    with bed(trial.configuration, trial.around) as at:
        return run_on(trial, at)


def run_on(trial: Trial, at: Bed) -> Case:
    """The same on a bed that is there already; unknown flows must be learned on it."""
    with at.streams(trial.per_s) as streams, StatusWatch(at.glacic) as watch:
        streams.wait_answered("unknown", 0.0)
        time.sleep(BEFORE_S)
        log, began = Log(at.glacic), time.monotonic()
        trial.begin(at)
        made = ended = time.monotonic()
        if trial.end is None:
            ended = began
        else:
            time.sleep(trial.lasts_s * SLOWER)
            ended = time.monotonic()
            trial.end(at)
        back = _wait_back(trial, at, streams, began, ended)
        time.sleep(AFTER_S)
        streams.rest()
        said, status = log.troubles(), watch.since(began)
        restless = log.restless()
    learned = {(flow["source"], flow["port"]) for flow in at.glacic.flows(state="allowed", protocol="udp")}
    case = Case(
        setting=trial.setting,
        kernel=kernel(),
        traffic=_traffic(trial, streams, (began, made, back), learned),
        said=said,
        status=status,
        recovered_s=round(back - ended, 2),
        **_flows(streams, began, trial.known_s, learned),
    )
    broken = [*_broken(trial, case), *_after(trial, streams, back)]
    flows = len({packet.port for packet in streams.kinds["unknown"].packets}) + len(streams.kinds["quiet"].packets)
    if restless > flows + trial.other_flows + 10:
        broken.append(f"{restless} log lines for {flows} flows")
    numbers: dict[str, str] = {}
    if trial.known_s:
        numbers["learned flows lost, the youngest among them"] = str(_flows(streams, began, 0.0, learned)["lost_flows"])
    if trial.measure is not None:
        measured, more = trial.measure(at, case)
        numbers |= measured
        broken += more
    return replace(case, numbers=numbers, broken=tuple(broken))


def _wait_back(trial: Trial, at: Bed, streams: Streams, began: float, ended: float) -> float:
    """When it was back: by its own word, and by the first of three new flows that are answered."""
    deadline = time.monotonic() + PATIENCE_S
    while not trial.is_back(at):
        if time.monotonic() > deadline:
            raise LabError(f"not back after {PATIENCE_S:g} s:\n{at.glacic.log.read_text()[-3000:]}")
        time.sleep(0.02 * SLOWER)
    said = time.monotonic()
    answered = streams.wait_answered("unknown", ended if trial.end is not None else began)
    return max(said, answered)


def _traffic(trial: Trial, streams: Streams, times: tuple[float, float, float], learned: Learned) -> dict[str, Count]:
    """Packets from begin to back. What should be stopped and was learned came when the engine answered again, and what
    was sent before the fault was made may have been answered before it (the kernel's own count has no such doubt)."""
    began, made, back = times
    promised = {**_ALWAYS, "quiet": trial.promised.get("unknown", EITHER), **trial.promised}
    counts = {}
    for kind, stream in streams.kinds.items():
        packets = stream.between(kind, began, back)
        promise = promised.get(kind, EITHER)
        if kind in _NEW and promise == STOP:
            packets = [packet for packet in packets if (_NEW[kind], packet.port) not in learned]
            packets = [packet for packet in packets if packet.answered is None or packet.sent > made + RACE_S]
        counts[kind] = Count.of(promise, packets)
    return counts


def _flows(streams: Streams, began: float, known_s: float | None, learned: Learned) -> dict[str, Any]:
    """How many flows were learned before the fault, and how many of those that are old enough are not known now."""
    begin = began - (known_s or 0.0)
    unknown = streams.kinds["unknown"].between("unknown", 0.0, begin)
    before = {packet.port for packet in unknown if packet.answered is not None and packet.answered < begin}
    lost = sum((LAPTOP_MAC, port) not in learned for port in before)
    return {"learned_before": len(before), "lost_flows": lost}


def _broken(trial: Trial, case: Case) -> list[str]:
    broken = []
    for kind, count in case.traffic.items():
        if count.wrong:
            broken.append(f"{count.wrong} {kind} packets passed that should not")
        if count.lost > trial.tolerated.get(kind, 0):
            broken.append(f"{count.lost} of {count.sent} {kind} packets are lost")
    if case.lost_flows and trial.known_s is not None:
        broken.append(f"{case.lost_flows} of {case.learned_before} learned flows are lost")
    for event, times in case.said.items():
        if times > trial.troubles_at_most:
            broken.append(f"said {times} times: {event}")
    return broken


def _after(trial: Trial, streams: Streams, back: float) -> list[str]:
    """What is not as it was before, once it is back. The last second's packets may have been resting."""
    broken = []
    for kind in {"unknown", "learned", "established", "quiet"} - set(trial.not_after):
        packets = streams.kinds[kind].between(kind, back, time.monotonic())
        lost = sum(packet.answered is None for packet in packets)
        if lost:
            broken.append(f"{lost} of {len(packets)} {kind} packets are lost after it was back")
    return broken


def let_in(mode: str) -> Measure:
    """What the kernel counts as let in by a fail mode: something if it is open, and nothing if it is closed."""

    def measure(at: Bed, _case: Case) -> tuple[dict[str, str], list[str]]:
        counted = int(at.glacic.call("stats")["queues"][0]["fail_open"])
        wrong = mode == "closed" and counted > 0
        return {"let in by the fail mode": str(counted)}, [f"{counted} let in by a closed fail mode"] if wrong else []

    return measure
