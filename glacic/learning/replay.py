"""Road 2, run over captures: the service's decoder and engine over a throw-away store. What would have been learned?

    record -> Packet -> of a connection that is known? -> policy -> Engine -> counted under its reason

Every packet is counted once, as unreadable or as decided. Time is the captures' own; `learn_for` is not applied, since
a capture does not say when learning was switched on. A packet that may begin a connection does so whatever was decided:
the capture shows what came of it.

Refuses to touch the kernel, and to grow with the capture: memory is bounded by a buffer, the table of connections, the
flow cache and the learning limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from glacic.config.model import Config
from glacic.config.policies import LearningPolicy, learning_policies
from glacic.errors import CaptureError
from glacic.learning.capture import Capture
from glacic.learning.choice import Choose, choice_of
from glacic.learning.connections import Connections
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Verdict, Why
from glacic.learning.frame import decode_frame
from glacic.learning.packet import Packet, Unknown
from glacic.learning.store import PAGE, FlowFilter, Store
from glacic.learning.stream import Record
from glacic.learning.switch import LearningSwitch
from glacic.learning.text import flow_dict

Progress = Callable[[int], None]

_ROUND: Final = (
    8192  # packets between two looks at progress and unwritten flows; far fewer than the cache may hold back
)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    flows: as `flows list` shows them, in the order they were first seen. notes: lines for the person who asked: how the
    policy was chosen, and what is damaged.
    """

    packets: int
    unreadable: dict[str, int]
    decisions: dict[str, int]
    flows: list[dict[str, Any]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `glacic replay --json`; unreadable and decisions add up to packets."""
        return {
            "packets": self.packets,
            "unreadable": self.unreadable,
            "decisions": self.decisions,
            "flows": self.flows,
        }


def replay(
    captures: Iterable[Path],
    config: Config,
    *,
    policy: str | None = None,
    learning: bool | None = None,
    progress: Progress | None = None,
) -> Report:
    """Replay capture files, one after the other, as one stretch of traffic.

    policy: every packet asks this one (None: choice.py). learning: on or off (None: the file's learning_mode).
    progress: told the bytes read so far, of all files.
    Raises CaptureError for a file that is no capture, GlacicError for a policy that does not exist or does not learn,
    StoreError if there is no room for the throw-away store.
    """
    chosen = choice_of(config, policy)
    with Store.temporary() as store:
        run = _Run(config, store, chosen.choose, learning, progress)
        notes = [chosen.note] if chosen.note else []
        for path in captures:
            damage = run.read(path)
            if damage is not None:
                notes.append(damage)
        return run.report(notes)


class _Run:
    """The state of one replay."""

    def __init__(
        self, config: Config, store: Store, choose: Choose, learning: bool | None, progress: Progress | None
    ) -> None:
        options = config.rule_learning
        policies = learning_policies(config)
        self._store = store
        self._cache = open_cache(store, options.cache_size)
        self._engine = Engine(
            policies,
            store=store,
            cache=self._cache,
            switch=LearningSwitch.restore(
                None,
                file_mode=options.learning_mode if learning is None else learning,
                learn_for_s=None,
                policies=[policy.name for policy in policies],
                now_ns=0,
            ),
            limits=Limits(options.learn_max_per_source, options.learn_max),
            ignore_networks=options.ignore_networks,
            on_change=lambda _transition: None,
        )
        self._choose = choose
        self._connections = Connections()
        self._unreadable: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._progress = progress or (lambda _done: None)
        self._bytes = 0  # of the captures read before

    def read(self, path: Path) -> str | None:
        """One capture. Returns what is damaged in it."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise CaptureError(f"{path}: {error.strerror}") from error
        with file:
            capture = Capture(file, str(path))
            records = capture.records()
            while self._round(islice(records, _ROUND)):
                self._progress(self._bytes + capture.position)
                self._write()
            self._bytes += capture.position
        self._progress(self._bytes)
        return capture.damage

    def report(self, notes: list[str]) -> Report:
        self._write()
        flows: list[dict[str, Any]] = []
        last_id = 0
        while page := self._store.list(FlowFilter(), after_id=last_id, limit=PAGE):
            last_id = page[-1].id
            flows += [_without_id(flow_dict(flow)) for flow in page]
        return Report(
            packets=self._unreadable.total() + self._decisions.total(),
            unreadable=_by_count(self._unreadable),
            decisions=_by_count(self._decisions),
            flows=flows,
            notes=notes,
        )

    def _round(self, records: Iterable[Record]) -> int:
        """Some records; returns how many. This loop runs once a packet: what is most frequent comes first."""
        knows, established, others = self._connections.knows, 0, 0
        for time_ns, link_type, data, _ in records:
            mac, packet = decode_frame(link_type, data)
            if not isinstance(packet, Unknown) and not packet.neighbour and knows(packet):
                established += 1
                continue
            others += 1
            if isinstance(packet, Unknown):
                self._unreadable[packet.reason] += 1
            else:
                self._decisions[self._decide(packet, mac, time_ns)] += 1
        if established:
            self._decisions[Why.ESTABLISHED] += established
        return established + others

    def _decide(self, packet: Packet, mac: bytes | None, now_ns: int) -> Why:
        """What becomes of a packet that belongs to no connection that is known."""
        if packet.neighbour:  # accepted before any policy is looked for
            return Why.NEIGHBOUR
        policy = self._choose(packet)
        if not isinstance(policy, LearningPolicy):
            why, accepted = policy, False
        else:
            decision = self._engine.decide(packet, policy, mac, now_ns)
            why, accepted = decision.why, decision.verdict is Verdict.ACCEPT
        if packet.first or accepted:  # of a flow that is allowed, conntrack picks up connections in their midst too
            self._connections.add(packet)
        return why

    def _write(self) -> None:
        """What the service's writing thread does."""
        batch = self._cache.take()
        if batch is not None:
            self._store.write(batch)
            self._cache.settle()


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, by name where they are equal."""
    return dict(sorted(sorted(counts.items()), key=itemgetter(1), reverse=True))


def _without_id(flow: dict[str, Any]) -> dict[str, Any]:
    """Ids mean something in the service's own store only."""
    return {name: value for name, value in flow.items() if name != "id"}
