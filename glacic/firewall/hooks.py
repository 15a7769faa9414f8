"""Road 1: what ends a learning chain (learned sets, rate limit, mark, hook), and what stands behind the hook.

The hook is one line, to the letter; everything that belongs to it is a rule before it. In inline mode the packet
carries the policy's number to the reader in its mark, and comes back to the chains behind the hook with an answer, or
without one where a fail mode let it through. What a rate limit holds back is dropped in nflog mode, as everything is;
inline it goes to a queue with room for nothing, which drops it, and is the fail mode again where nobody listens.

Refuses to know zones: it is given a LearningPolicy and says how its chain ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from glacic.config.model import Action, FailMode, Rate, RuleLearning
from glacic.config.policies import LearningPolicy
from glacic.firewall import claims
from glacic.firewall.limits import limit_chain, limiter
from glacic.firewall.match import ADDRESS_TYPE, FAMILY_WORD, network_elements
from glacic.firewall.quoting import quote_prefix, remark
from glacic.firewall.ruleset import Chain, Counter, Hook, Part, Rule, Set
from glacic.firewall.shapes import ALLOW_CHAIN, REFUSE_CHAIN, Shape, chain_name, learned_set, lookup

DEFAULT_LOG_RATE = Rate(10, "minute")
_ALL_BITS = 0xFFFF_FFFF
_INSPECT = "inspect"
_HELD_BACK = "held_back"
_ANSWERED = "answered"
_CLOSED = Rule("counter drop", "Nobody is there to be asked")


class Hooks:
    """How chains end under these settings. `policies`: all that learn, for the width of the mark's field."""

    def __init__(self, settings: RuleLearning, policies: Collection[LearningPolicy], *, closed: bool = False) -> None:
        """closed: nobody is there to be asked, so a counted drop stands in place of each hook."""
        self._settings = settings
        self._closed = closed
        self._policies = policies
        self._field = claims.field(max((policy.number for policy in policies), default=1))
        self._inline = settings.inline_mode
        self._window = self._inline and settings.packet_window > 0 and not closed  # what was learned passes
        self._rate = settings.rate_limit or (None if self._inline else DEFAULT_LOG_RATE)

    def before_established(self) -> list[Rule]:
        """What a base chain begins with where connections have a packet window: open ones go to the reader."""
        if not self._window or not self._policies:
            return []
        bits = claims.CT_INSPECT | self._settings.offload_mark
        inspect = f"ct state established ct mark & {_hex(bits)} == {_hex(claims.CT_INSPECT)} goto {_INSPECT}"
        return [*self._foreign(), Rule(inspect, "A connection that is still shown to the engine")]

    def after_established(self) -> list[Rule]:
        """What stands before everything else that is for the first packets of connections."""
        return self._foreign() if self._inline and self._policies and not self._window else []

    def _foreign(self) -> list[Rule]:
        bits = claims.ASKED | claims.REJECT
        clear = f"meta mark & {_hex(bits)} != 0 meta mark set meta mark & {_hex(_ALL_BITS ^ bits)}"
        return [Rule(clear, "These bits of the packet mark are the hook's: set by anybody else, they mean nothing")]

    def tail(self, policy: LearningPolicy) -> list[Rule]:
        """The end of a learning policy's chain; every packet that gets here is decided."""
        refusal = f"goto {REFUSE_CHAIN}" if policy.action is Action.REJECT else "counter drop"
        rules = [Rule(f"jump {chain_name(policy)}", "What was learned")]
        for at, (family, name) in enumerate(self._ignored()):
            note = "Of these networks nothing is learned" if at == 0 else ""
            rules.append(Rule(f"{FAMILY_WORD[family]} saddr @{name} {refusal}", note))
            rules.append(Rule(f"{FAMILY_WORD[family]} daddr @{name} {refusal}"))
        return [*rules, *(self._asking(policy) if self._inline else self._logging(policy))]

    def parts(self, policy: LearningPolicy, interface: str, shapes: Iterable[Shape]) -> list[Part]:
        """What stands behind a learning policy's chain: its learned sets, their lookups, its limiter.

        interface: "iifname" or "oifname", what the wider limit counts by.
        """
        uses = [(shape, allowed) for shape in sorted(shapes) for allowed in (False, True)]
        note = f"{remark(policy.name)}: a lookup for each learned set"
        if not uses:
            note += ", put here by the service when it makes the set"
        parts: list[Part] = [learned_set(policy.name, *use) for use in uses]
        parts.append(Chain(chain_name(policy), tuple(lookup(policy, *use) for use in uses), note=note))
        if self._rate:
            refusal = f"counter goto {REFUSE_CHAIN}" if policy.action is Action.REJECT else "counter drop"
            parts += limiter(policy, interface, self._rate, f"goto {_HELD_BACK}" if self._inline else refusal)
        return parts

    def before(self) -> list[Part]:
        """What the chains refer to: the ignored networks, and the counter of the fail modes."""
        note = "Of these networks nothing is learned"
        parts: list[Part] = [
            Set(name, f"type {ADDRESS_TYPE[family]}; flags interval;", tuple(self._elements(family)), note=note)
            for family, name in self._ignored()
        ]
        if self._inline and self._policies:
            parts.append(Counter(claims.FAIL_OPEN_COUNTER, "Packets that a fail mode let through"))
        return parts

    def behind(self, bases: Iterable[str]) -> list[Part]:
        """The chains that all policies share, and those behind the hook for these base chains ("input", ...)."""
        if not self._policies:
            return []
        parts: list[Part] = [self._allowed()]
        if not self._inline:
            return parts
        if self._window:
            ask = f"meta mark set {self._with_field(claims.ASKED)}"
            note = "Shown to the engine: a packet of a connection that it has accepted"
            parts.append(Chain(_INSPECT, (Rule(ask), self._queue()), note=note))
        if self._rate:
            sink = claims.sink_queue(self._settings.log_group, self._settings.queues)
            note = "Above the rate: a queue that holds nothing, so that only a fail mode can let a packet through here"
            rule = _CLOSED if self._closed else Rule(f"queue num {sink}{self._bypass()}")
            parts.append(Chain(_HELD_BACK, (rule,), note=note))
        for base in bases:
            note = f"Behind the hook in {base}: a packet that was accepted there goes on here, answered or not"
            hook = Hook("filter", base, f"filter + {claims.BEHIND_HOOK}", "accept")
            # Without a window nothing else has been asked about, and nobody else's bits were cleared.
            asked = "" if self._window else "ct state new,invalid,untracked "
            jump = Rule(f"meta mark & {_hex(self._field)} != 0 {asked}goto {_ANSWERED}")
            parts.append(Chain(f"after_{base}", (jump,), hook, note))
        return [*parts, self._answered()]

    def _asking(self, policy: LearningPolicy) -> list[Rule]:
        rules = []
        if self._window:
            packets = f"{self._settings.packet_window} packet{'s' if self._settings.packet_window > 1 else ''}"
            note = f"Accepted or not, the engine sees the first {packets} of the connection"
            rules.append(Rule(f"ct mark set ct mark | {_hex(claims.CT_INSPECT)}", note))
        mark = f"meta mark set {self._with_field(claims.mark_of(policy.number))}"
        rules.append(Rule(mark, f"The rest is asked about, as policy {policy.number}"))
        if self._rate:
            rules.append(Rule(f"jump {limit_chain(policy)}"))
        return [*rules, self._queue()]

    def _logging(self, policy: LearningPolicy) -> list[Rule]:
        rules = []
        if self._rate:
            note = "Above the rate it is dropped unseen: the limit spares user space, it never gates the drop"
            rules.append(Rule(f"jump {limit_chain(policy)}", note.replace("dropped", _past(policy.action))))
        if any(other.name == policy.name and other != policy for other in self._policies):
            mark = f"meta mark set {self._with_field(claims.mark_of(policy.number))}"
            rules.append(Rule(mark, f"Sources go by {policy.identity.upper()} here: policy {policy.number}"))
        if self._closed:
            return [*rules, _CLOSED]
        prefix = quote_prefix(f"{policy.name}: ")
        log = f"log group {self._settings.log_group} prefix {prefix} counter"
        if policy.action is not Action.REJECT:
            return [*rules, Rule(f"{log} drop", "The rest is logged and dropped")]
        return [
            *rules,
            Rule(f"meta l4proto tcp {log} reject with tcp reset", "The rest is logged and rejected"),
            Rule(f"{log} reject with icmpx admin-prohibited"),
        ]

    def _queue(self) -> Rule:
        if self._closed:
            return _CLOSED
        first, count = self._settings.log_group, self._settings.queues
        if count == 1:
            return Rule(f"queue num {first}{self._bypass()}")
        flags = "bypass,fanout" if self._settings.fail_mode is FailMode.OPEN else "fanout"
        return Rule(f"queue num {first}-{first + count - 1} {flags}")

    def _bypass(self) -> str:
        return " bypass" if self._settings.fail_mode is FailMode.OPEN else ""

    def _allowed(self) -> Chain:
        if self._window:
            offload = self._settings.offload_mark
            # A connection that nobody answers stays "new", and comes here with every packet.
            seen = Rule(f"ct mark & {_hex(offload)} == {_hex(offload)} accept", "The engine has seen enough of it")
            mark = Rule(f"ct mark set ct mark | {_hex(claims.CT_INSPECT)}", apart=True)
            note = "A learned flow that is allowed; the engine sees the first packets of each connection"
            return Chain(ALLOW_CHAIN, (seen, mark, Rule(f"goto {_INSPECT}")), note=note)
        return Chain(ALLOW_CHAIN, (Rule("accept"),), note="A learned flow that is allowed")

    def _answered(self) -> Chain:
        clear = f"meta mark set meta mark & {_hex(_ALL_BITS ^ self._field)}"
        reject = f"meta mark & {_hex(claims.ASKED | claims.REJECT)} == {_hex(claims.REJECT)}"
        asked = f"meta mark & {_hex(claims.ASKED)} == {_hex(claims.ASKED)}"
        rules = [
            Rule(f"{reject} meta l4proto tcp counter reject with tcp reset", "Answered: reject"),
            Rule(f"{reject} counter reject with icmpx admin-prohibited"),
        ]
        if self._window:
            bits = claims.CT_INSPECT
            over = f"meta mark & {_hex(self._field)} == {_hex(claims.OFFLOAD)} ct mark & {_hex(bits)} == {_hex(bits)}"
            marked = f"ct mark set ct mark & {_hex(_ALL_BITS ^ bits)} | {_hex(self._settings.offload_mark)}"
            rules.append(Rule(f"{over} {marked} {clear}", "Answered: seen enough of this connection"))
        counted = f"counter name {claims.FAIL_OPEN_COUNTER} ct mark set ct mark | {_hex(claims.CT_FAIL_OPEN)}"
        rules.append(Rule(f"{asked} {counted} {clear}", "Still asking: a fail mode let it through"))
        return Chain(_ANSWERED, tuple(rules))

    def _with_field(self, value: int) -> str:
        """The packet mark with the hook's field set to `value` and everybody else's bits as they are."""
        return f"meta mark & {_hex(_ALL_BITS ^ self._field)} | {_hex(value)}"

    def _ignored(self) -> list[tuple[int, str]]:
        """(family, set name) for each family that has networks to be ignored."""
        if not self._policies:
            return []
        return [(family, f"ignored_{word}") for family, word in FAMILY_WORD.items() if self._elements(family)]

    def _elements(self, family: int) -> list[str]:
        return network_elements(family, self._settings.ignore_networks)


def _past(action: Action) -> str:
    return "rejected" if action is Action.REJECT else "dropped"


def _hex(bits: int) -> str:
    return f"0x{bits:08x}"
