"""The learned sets against the real kernel, in a network namespace: what is told is there, decides, and counts."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import pytest

from glacic.config.model import Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.elements import KernelSets
from glacic.errors import KernelRefused
from glacic.firewall import learned
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.firewall.shapes import Key, Shape, set_name, shapes_of
from glacic.lab.net import Host, Network, Port

MAC = bytes.fromhex("020000000001")
IP4, IP6 = socket.inet_aton("10.0.0.1"), socket.inet_pton(socket.AF_INET6, "fd00::1")

LAN = LearningPolicy(name="lan_wan", number=3)
STRICT = LearningPolicy(name="guest: wan", number=4, action=Action.REJECT, granularity=Granularity.DESTINATION)
BY_IP = LearningPolicy(name="dmz_wan", number=5, identity=Identity.IP, granularity=Granularity.DESTINATION)
INPUT = LearningPolicy(name="DROP_INPUT", number=1)
INPUT_BY_IP = LearningPolicy(name="DROP_INPUT", number=6, identity=Identity.IP)
POLICIES = (LAN, STRICT, BY_IP, INPUT, INPUT_BY_IP)

SSH: Key = ("lan_wan", MAC, 6, 22, b"")
WEB: Key = ("lan_wan", MAC, 6, 443, b"")
DNS: Key = ("lan_wan", MAC, 17, 53, b"")

TABLE = """
add table inet glacic
add chain inet glacic input { type filter hook input priority 0; policy accept; }
add chain inet glacic allow_learned
add chain inet glacic learned_lan_wan
add rule inet glacic allow_learned accept
add rule inet glacic input ip protocol udp jump learned_lan_wan
add rule inet glacic input ip protocol udp counter drop
"""


class Kernel(KernelSets):
    """The kernel's sets, how many transactions there were, and whether it says how large they are, whatever kernel it
    really is."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[str] = []
        self.silent = False
        self.refuses = False

    def sizes(self) -> dict[str, int | None]:
        return {name: None if self.silent else self._size(name, size) for name, size in super().sizes().items()}

    def _size(self, name: str, told: int | None) -> int:
        return len({key for key, _ in self.elements(name)}) if told is None else told

    def change(self, leaving: Mapping[str, Sequence[bytes]], coming: Mapping[str, Sequence[bytes]]) -> None:
        if self.refuses:
            raise KernelRefused("no")
        self.transactions.append("change")
        super().change(leaving, coming)

    def refill(self, name: str, keys: Iterable[bytes]) -> None:
        self.transactions.append(f"refill {name}")
        super().refill(name, keys)


class Nft(Libnftables):
    """libnftables, and what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []

    def run(self, script: str) -> None:
        self.scripts.append(script)
        super().run(script)


class Firewall:
    """A namespace with our table in it, and the learned sets under test, called from inside."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.nft = host.call(Nft)
        self.kernel = Kernel()
        self.run(TABLE)
        self.sets = self.restarted()

    def restarted(self, *policies: LearningPolicy) -> LearnedSets:
        """As a new process would begin."""
        return LearnedSets(self.nft, self.kernel, policies or POLICIES)

    def run(self, script: str) -> None:
        self.host.call(self.nft.run, script)

    def apply(self, *changes: tuple[Key, str | None]) -> None:
        self.host.call(self.sets.apply, changes)

    def reconcile(self, *stored: tuple[Key, str]) -> learned.Reconciled:
        return self.host.call(self.sets.reconcile, stored)

    def raw(self, name: str) -> list[tuple[bytes, int]]:
        """A set's elements, once the kernel has moved them into a table of the right size: until then it tells of some
        twice, and of others not at all."""

        def read() -> list[tuple[bytes, int]]:
            ends = time.monotonic() + 10
            while True:
                found, size = list(self.kernel.elements(name)), KernelSets().sizes().get(name)
                if len(dict(found)) == (size or len(found)) or time.monotonic() > ends:
                    return found
                time.sleep(0.02)

        return self.host.call(read)

    def counters(self) -> dict[Key, int]:
        return self.host.call(lambda: dict(self.sets.counters()))

    def holds(self) -> dict[Key, str]:
        """What the kernel enforces, found by every set that could be there."""
        found: dict[Key, str] = {}
        for policy in POLICIES:
            for shape, allowed in product(shapes_of(policy), (False, True)):
                for raw, _ in self.raw(set_name(policy.name, shape, allowed)):
                    key = learned.key_from_kernel(policy.name, shape, raw)
                    word = "allowed" if allowed else "refused"
                    assert found.setdefault(key, word) == word, f"{key} is on both sides"
        return found

    def chain(self, name: str) -> str:
        return self.host.run(["nft", "list", "chain", "inet", "glacic", name]).stdout


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as net:
        yield net


@pytest.fixture
def firewall(network: Network) -> Firewall:
    return Firewall(network.host("fw"))


def test_an_allowed_flow_becomes_an_element_with_its_set_and_its_lookup(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    assert firewall.holds() == {SSH: "allowed"}
    assert "@allowed_lan_wan_mac_port goto allow_learned" in firewall.chain("learned_lan_wan")


@pytest.mark.parametrize("state", ["denied", "ignored"])
def test_a_refused_flow_becomes_an_element_of_the_other_set(firewall: Firewall, state: str) -> None:
    firewall.apply((SSH, state))
    assert firewall.holds() == {SSH: "refused"}


def test_a_flow_changes_sides_in_one_transaction(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"))
    firewall.kernel.transactions.clear()
    firewall.apply((SSH, "denied"), (WEB, "allowed"))
    assert firewall.kernel.transactions == ["change"]
    assert firewall.holds() == {SSH: "refused", WEB: "allowed"}


@pytest.mark.parametrize("state", [None, "pending"])
def test_a_flow_without_a_verdict_leaves_whatever_set_it_was_in(firewall: Firewall, state: str | None) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"), (DNS, "allowed"))
    firewall.apply((SSH, state), (WEB, state))
    assert firewall.holds() == {DNS: "allowed"}


def test_what_was_never_there_can_be_taken_out(firewall: Firewall) -> None:
    firewall.apply((SSH, None))
    firewall.apply((WEB, "allowed"))
    firewall.apply((SSH, None), (SSH, None))
    assert firewall.holds() == {WEB: "allowed"}


def test_of_several_changes_the_last_counts(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"), (SSH, "denied"), (WEB, None), (SSH, "allowed"))
    assert firewall.holds() == {SSH: "allowed"}


def keys_of_every_shape() -> Iterator[Key]:
    for policy in POLICIES:
        sources = (IP4, IP6) if policy.identity is Identity.IP else (MAC, IP4, IP6)
        for source, rest in product(sources, [(6, 443), (17, 53), (132, 9), (136, 7), (1, 8), (58, 128), (47, 0)]):
            if policy.granularity is Granularity.SERVICE:
                yield (policy.name, source, *rest, b"")
            else:
                yield from ((policy.name, source, *rest, to) for to in (IP4, IP6) if len(source) in (6, len(to)))


def test_keys_of_every_shape_come_back_from_the_kernel_as_they_went(firewall: Firewall) -> None:
    keys = list(dict.fromkeys(keys_of_every_shape()))
    firewall.apply(*((key, "allowed" if at % 2 else "denied") for at, key in enumerate(keys)))
    assert firewall.holds() == {key: "allowed" if at % 2 else "refused" for at, key in enumerate(keys)}
    # ports and ICMP on both sides, GRE on one
    assert sorted(firewall.chain("learned_DROP_INPUT").count(s) for s in ("ether saddr", "ip saddr")) == [5, 5]
    assert "ether saddr" not in firewall.chain("learned_DROP_INPUT_ip")
    assert "@refused_DROP_INPUT_ip_port" in firewall.chain("learned_DROP_INPUT_ip")


def test_a_flow_that_no_packet_can_have_is_left_out(firewall: Firewall) -> None:
    gone = ("gone_policy", MAC, 6, 22, b"")
    by_mac = ("dmz_wan", MAC, 6, 22, IP4)  # the zone's identity was changed
    with_destination = ("lan_wan", MAC, 6, 22, IP4)  # and the policy's granularity
    hostile = ("lan_wan", b"\0" * 5, 6, 22, b"")
    firewall.apply(*((key, "allowed") for key in (gone, by_mac, with_destination, hostile, SSH)))
    assert firewall.holds() == {SSH: "allowed"}


def test_a_large_change_goes_in_batches(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "BATCH", 100)
    keys = [("lan_wan", MAC, 17, port, b"") for port in range(250)]
    firewall.apply((SSH, "allowed"))
    firewall.kernel.transactions.clear()
    firewall.apply(*((key, "allowed") for key in keys))
    assert firewall.kernel.transactions == ["change"] * 3
    assert firewall.holds() == dict.fromkeys([SSH, *keys], "allowed")


def test_the_kernel_follows_a_long_and_random_history(firewall: Firewall) -> None:
    chance = random.Random(7)
    keys = list(keys_of_every_shape())[:40]
    told: dict[Key, str | None] = {}
    for _ in range(25):
        if chance.random() < 0.2:
            firewall.sets = firewall.restarted()
        changes = [(chance.choice(keys), chance.choice(["allowed", "denied", "ignored", "pending", None]))]
        changes += [
            (chance.choice(keys), chance.choice(["allowed", "denied", None])) for _ in range(chance.randrange(6))
        ]
        firewall.apply(*changes)
        told.update(changes)
    word = {"allowed": "allowed", "denied": "refused", "ignored": "refused"}
    assert firewall.holds() == {key: word[state] for key, state in told.items() if state in word}


@pytest.mark.parametrize(
    "vandalism",
    [
        pytest.param("delete table inet glacic\n" + TABLE, id="loaded anew"),
        pytest.param("flush chain inet glacic learned_lan_wan\n", id="without lookups"),
        pytest.param(
            "flush chain inet glacic learned_lan_wan\ndelete set inet glacic allowed_lan_wan_mac_port\n",
            id="without sets",
        ),
    ],
)
def test_a_reconcile_repairs_what_somebody_did_to_the_table(firewall: Firewall, vandalism: str) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"))
    firewall.run(vandalism)
    firewall.reconcile((SSH, "allowed"), (WEB, "denied"))
    assert firewall.holds() == {SSH: "allowed", WEB: "refused"}
    assert firewall.chain("learned_lan_wan").count("_lan_wan_mac_port") == 2


def test_a_change_after_the_table_was_loaded_anew_makes_set_and_lookup_again(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.run("delete table inet glacic\n" + TABLE)
    firewall.apply((WEB, "allowed"))
    assert firewall.holds() == {WEB: "allowed"}
    assert "@allowed_lan_wan_mac_port" in firewall.chain("learned_lan_wan")


def test_without_a_table_the_kernel_refuses(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.run("delete table inet glacic\n")
    with pytest.raises(KernelRefused):
        firewall.apply((WEB, "allowed"))
    with pytest.raises(KernelRefused):
        firewall.reconcile((SSH, "allowed"))
    assert firewall.counters() == {}


def test_a_lookup_is_never_there_twice(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.sets = firewall.restarted()
    firewall.apply((SSH, "denied"), (("lan_wan", IP4, 6, 22, b""), "allowed"))
    chain = firewall.chain("learned_lan_wan")
    assert chain.count("@allowed_lan_wan_mac_port") == 1
    assert chain.count("@refused_lan_wan_mac_port") == 1
    assert chain.count("@allowed_lan_wan_ip_port") == 1


def test_a_restart_finds_what_is_there(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (("dmz_wan", IP6, 58, 128, IP6), "denied"))
    sets = firewall.restarted()
    assert firewall.host.call(sets.shapes) == {
        "lan_wan": {Shape("mac", "port")},
        "dmz_wan": {Shape("ip6", "icmp", "ip6")},
    }


def test_a_reload_goes_on_with_its_own_policies(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.sets.renew([LearningPolicy(name="lan_wan", number=3, action=Action.REJECT), BY_IP])
    firewall.apply((WEB, "denied"), (("DROP_INPUT", MAC, 6, 22, b""), "allowed"))
    assert firewall.holds() == {SSH: "allowed", WEB: "refused"}
    assert "@refused_lan_wan_mac_port goto refuse" in firewall.chain("learned_lan_wan")


# ---- with packets


@pytest.fixture
def client(network: Network, firewall: Firewall) -> Host:
    client = network.host("client")
    network.cable(
        Port(client, "eth0", MAC.hex(":"), ("10.0.0.1/24",)),
        Port(firewall.host, "lan0", "02:00:00:00:00:fe", ("10.0.0.2/24",)),
    )
    return client


def send(client: Host, *ports: int) -> None:
    """One datagram to each port of the firewall."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in ports:
                sock.sendto(b"?", ("10.0.0.2", port))

    client.call(send)


def arrivals(firewall: Firewall, client: Host, *ports: int) -> set[int]:
    """Which of these ports a datagram reaches. A last one, always accepted, says that all others have been decided."""

    def listener(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(10)
        sock.bind(("10.0.0.2", port))
        return sock

    last = 9
    firewall.apply((("lan_wan", MAC, 17, last, b""), "allowed"))
    socks = {port: firewall.host.call(listener, port) for port in (*ports, last)}
    try:
        send(client, *ports, last)
        socks[last].recv(10)
        got = set()
        for port in ports:
            socks[port].setblocking(False)
            try:
                socks[port].recv(10)
                got.add(port)
            except BlockingIOError:
                pass
        return got
    finally:
        for sock in socks.values():
            sock.close()


def test_the_kernel_lets_in_what_is_allowed_and_counts_it(firewall: Firewall, client: Host) -> None:
    allowed, denied = ("lan_wan", MAC, 17, 53, b""), ("lan_wan", MAC, 17, 69, b"")
    firewall.apply((allowed, "allowed"), (denied, "denied"))
    assert arrivals(firewall, client, 53, 69, 123) == {53}
    assert arrivals(firewall, client, 53, 69, 123) == {53}
    counted = firewall.counters()
    assert (counted[allowed], counted[denied]) == (2, 2)
    assert ("lan_wan", MAC, 17, 123, b"") not in counted


@pytest.mark.parametrize("silent", [False, True], ids=["by numbers", "by keys"])
def test_a_reconcile_adds_and_removes_and_leaves_the_counters_of_the_rest(
    firewall: Firewall, client: Host, silent: bool
) -> None:
    firewall.kernel.silent = silent
    keys = {port: ("lan_wan", MAC, 17, port, b"") for port in (53, 69, 123, 161)}
    firewall.apply((keys[53], "allowed"), (keys[69], "allowed"), (keys[123], "denied"))
    assert arrivals(firewall, client, *keys) == {53, 69}
    firewall.sets = firewall.restarted()
    done = firewall.reconcile(
        (keys[53], "allowed"), (keys[123], "allowed"), (keys[161], "denied"), (("lan_wan", MAC, 17, 9, b""), "allowed")
    )
    # 123 changed sides, which takes its old element along where keys are compared; 161 came, 69 went
    assert done == learned.Reconciled(added=2, removed=1 if silent else 2)
    assert firewall.counters()[keys[53]] == 1
    assert arrivals(firewall, client, *keys) == {53, 123}
    assert firewall.counters()[keys[53]] == 2


def test_numbers_and_keys_lead_to_the_same(firewall: Firewall) -> None:
    """The quick way and its slow twin, from the same random states."""
    chance = random.Random(11)
    keys = list(keys_of_every_shape())[:60]
    word = {"allowed": "allowed", "denied": "refused", "ignored": "refused"}
    for round_ in range(12):
        before = {key: chance.choice(["allowed", "denied", None]) for key in keys}
        stored = {key: chance.choice(["allowed", "denied", "ignored"]) for key in keys if chance.random() < 0.6}
        done = []
        for silent in (False, True):
            firewall.apply(*before.items())
            firewall.holds()  # and so has settled
            firewall.sets = firewall.restarted()
            firewall.kernel.silent = silent
            done.append(firewall.reconcile(*stored.items()))
            assert firewall.holds() == {key: word[state] for key, state in stored.items()}, round_
        moved = sum(word[state] != word[before[key] or state] for key, state in stored.items())
        assert done[0] == (done[1].added, done[1].removed + moved)


def test_what_is_there_is_not_gone_through(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"))
    firewall.sets = firewall.restarted()
    firewall.kernel.transactions.clear()
    assert firewall.reconcile((SSH, "allowed"), (WEB, "denied")) == (0, 0)
    assert firewall.kernel.transactions == ["change"]
    assert firewall.reconcile((SSH, "allowed"), (WEB, "allowed")) == (1, 1)
    assert firewall.kernel.transactions[1:] == ["change", "refill refused_lan_wan_mac_port"]


def test_a_kernel_that_tells_no_numbers_is_believed_in_a_fresh_table(firewall: Firewall) -> None:
    firewall.kernel.silent = True
    assert firewall.reconcile((SSH, "allowed"), (WEB, "denied")) == (2, 0)
    assert firewall.holds() == {SSH: "allowed", WEB: "refused"}


def test_numbers_that_differ_are_told_and_nothing_is_changed(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (WEB, "denied"))
    before = firewall.holds()

    def differing(*stored: tuple[Key, str]) -> list[tuple[int, int]]:
        return sorted(firewall.host.call(firewall.sets.differing, iter(stored)).values())

    tells = None not in firewall.host.call(firewall.kernel.sizes).values()  # from Linux 6.16 on
    assert differing((SSH, "allowed"), (WEB, "denied")) == []
    assert differing((SSH, "denied"), (WEB, "denied")) == ([(1, 0), (1, 2)] if tells else [])
    assert firewall.holds() == before


def test_what_is_stored_may_come_once(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"), (DNS, "allowed"))
    done = firewall.host.call(firewall.sets.reconcile, iter([(SSH, "denied"), (WEB, "allowed")]))
    assert done == (2, 2)
    assert firewall.holds() == {SSH: "refused", WEB: "allowed"}


class Stored:
    """What is stored; while it is first gone through, somebody empties the set."""

    def __init__(self, firewall: Firewall, *keys: Key) -> None:
        self.firewall = firewall
        self.keys = keys

    def __iter__(self) -> Iterator[tuple[Key, str]]:
        for key in self.keys[:-1]:
            yield key, "allowed"
        if not self.firewall.kernel.transactions[-1].startswith("refill"):
            self.firewall.nft.run("flush set inet glacic allowed_lan_wan_mac_port\n")
            self.firewall.kernel.transactions.append("refill by somebody")
        yield self.keys[-1], "allowed"


def test_a_set_that_loses_elements_meanwhile_gets_them_back(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "BATCH", 1)
    firewall.apply((SSH, "allowed"))
    firewall.host.call(firewall.sets.reconcile, Stored(firewall, SSH, WEB, DNS))
    assert firewall.kernel.transactions[-1] == "refill allowed_lan_wan_mac_port"
    assert firewall.holds() == dict.fromkeys((SSH, WEB, DNS), "allowed")


def test_what_the_kernel_does_not_take_goes_by_way_of_nft(firewall: Firewall) -> None:
    keys = list(keys_of_every_shape())
    firewall.apply(*((key, "denied") for key in keys))
    firewall.kernel.refuses = True
    firewall.apply(*((key, "allowed" if at % 2 else None) for at, key in enumerate(keys)))
    assert firewall.holds() == {key: "allowed" for at, key in enumerate(keys) if at % 2}


def test_a_refusal_is_told_in_the_words_of_nft(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.run("delete table inet glacic\n")
    with pytest.raises(KernelRefused, match=r"the kernel refused the script, nothing was changed:\nline \d+, column"):
        firewall.apply((WEB, "allowed"))


def test_a_reconcile_of_one_policy_leaves_the_others_alone(firewall: Firewall) -> None:
    other = ("dmz_wan", IP4, 6, 22, IP4)
    firewall.apply((SSH, "allowed"), (other, "allowed"))
    done = firewall.host.call(firewall.sets.reconcile, [(WEB, "allowed")], "lan_wan")
    assert done == learned.Reconciled(added=1, removed=1)
    assert firewall.holds() == {WEB: "allowed", other: "allowed"}


def test_a_table_that_was_loaded_anew_is_noticed_after_a_reload_too(firewall: Firewall) -> None:
    firewall.apply((SSH, "allowed"))
    firewall.host.call(firewall.sets.renew, POLICIES)
    assert firewall.host.call(firewall.sets.lost) is False
    firewall.run("delete table inet glacic\n" + TABLE)
    assert firewall.host.call(firewall.sets.lost) is True
