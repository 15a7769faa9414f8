"""The shapes of a flow's key: set, element, lookup, and the bytes that the kernel keeps."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.model import Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.firewall.nft import Libnftables
from glacic.firewall.shapes import (
    Key,
    Shape,
    chain_name,
    element_text,
    ensure_script,
    kernel_key,
    key_from_kernel,
    lookup,
    rewrite_script,
    set_name,
    shape_of,
    shapes_of,
    uses_in,
)
from glacic.lab.net import Host

MAC, IP, IP6 = bytes.fromhex("020000000001"), bytes([10, 1, 0, 2]), bytes.fromhex("fd01" + "00" * 13 + "02")
LAN = LearningPolicy(name="lan_wan", number=3)

ROWS = [
    (("p", MAC, 6, 443, b""), "mac_port", "02:00:00:00:00:01 . 6 . 443", "020000000001 0000 06000000 01bb0000"),
    (("p", MAC, 58, 128, b""), "mac_icmp", "02:00:00:00:00:01 . 58 . 128", "020000000001 0000 3a000000 80000000"),
    (("p", MAC, 47, 0, IP), "mac_proto_ip", "02:00:00:00:00:01 . 47 . 10.1.0.2", "0200000000010000 2f000000 0a010002"),
    (("p", IP, 132, 9, b""), "ip_port", "10.1.0.2 . 132 . 9", "0a010002 84000000 00090000"),
    (("p", IP, 17, 53, IP), "ip_port_ip", "10.1.0.2 . 17 . 53 . 10.1.0.2", "0a010002 11000000 00350000 0a010002"),
    (("p", IP6, 0, 0, b""), "ip6_proto", "fd01::2 . 0", "fd01" + "00" * 13 + "02 00000000"),
]

protocols = st.integers(0, 255)
sources = st.sampled_from([4, 6, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@st.composite
def keys(draw: st.DrawFn) -> Key:
    source, protocol = draw(sources), draw(protocols)
    sizes = [0, len(source)] if len(source) != 6 else [0, 4, 16]
    size = draw(st.sampled_from(sizes))
    key = ("lan_wan", source, protocol, 0, draw(st.binary(min_size=size, max_size=size)))
    limit = {"port": 65535, "icmp": 255, "proto": 0}[shape_of(key).kind]
    return (*key[:3], draw(st.integers(0, limit)), key[4])


@pytest.mark.parametrize(("key", "shape", "element", "raw"), ROWS)
def test_a_key_has_a_shape_an_element_and_bytes(key: Key, shape: str, element: str, raw: str) -> None:
    assert str(shape_of(key)) == shape
    assert element_text(key) == element
    assert kernel_key(key) == bytes.fromhex(raw)


@given(keys())
def test_the_kernels_bytes_give_the_key_back(key: Key) -> None:
    assert key_from_kernel(key[0], shape_of(key), kernel_key(key)) == key


@given(keys())
def test_every_shape_of_a_flow_is_one_its_policy_has(key: Key) -> None:
    _, source, _, _, destination = key
    policy = LearningPolicy(
        name="p",
        number=1,
        identity=Identity.MAC if len(source) == 6 else Identity.IP,
        granularity=Granularity.DESTINATION if destination else Granularity.SERVICE,
    )
    assert shape_of(key) in shapes_of(policy)


@pytest.mark.parametrize(("source", "destination"), [(b"", b""), (b"12345", b""), (IP, IP6), (IP6, IP), (MAC, b"1")])
def test_lengths_that_no_address_has_are_refused(source: bytes, destination: bytes) -> None:
    with pytest.raises(ValueError, match="source"):
        shape_of(("p", source, 6, 1, destination))


@given(st.binary(max_size=40))
def test_bytes_of_another_shape_are_refused(raw: bytes) -> None:
    if len(raw) != 16:
        with pytest.raises(ValueError, match="shape"):
            key_from_kernel("p", Shape("mac", "port"), raw)


def test_names_of_sets_never_meet() -> None:
    policies = ["a", "a_mac", "a_mac_port", "a_ip", "b", "a-b"]
    shapes = [Shape(*s) for s in product(("mac", "ip", "ip6"), ("port", "icmp", "proto"), ("", "ip", "ip6"))]
    every = list(product(policies, shapes, (True, False)))
    assert len({set_name(*one) for one in every}) == len(every)


def test_the_two_variants_of_an_end_have_two_chains_and_the_same_sets() -> None:
    mac = LearningPolicy(name="DROP_INPUT", number=1)
    ip = LearningPolicy(name="DROP_INPUT", number=9, identity=Identity.IP)
    assert (chain_name(mac), chain_name(ip)) == ("learned_DROP_INPUT", "learned_DROP_INPUT_ip")
    by_mac, by_ip = (lookup(policy, Shape("ip", "port"), True).statement for policy in (mac, ip))
    assert by_mac == f"meta iiftype != ether {by_ip}"


def test_a_refused_flow_gets_the_policys_own_refusal() -> None:
    rejects = LearningPolicy(name="lan_wan", number=3, action=Action.REJECT)
    assert lookup(LAN, Shape("mac", "port"), False).statement.endswith("@refused_lan_wan_mac_port drop")
    assert lookup(rejects, Shape("mac", "port"), False).statement.endswith("@refused_lan_wan_mac_port goto refuse")


def test_the_sets_of_a_policy_are_found_by_their_names() -> None:
    names = ["allowed_lan_wan_mac_port", "refused_lan_wan_ip6_proto", "allowed_other_mac_port", "allowed_lan_wan_x"]
    assert uses_in(LAN, names) == ((Shape("mac", "port"), True), (Shape("ip6", "proto"), False))


@pytest.mark.parametrize("identity", list(Identity))
@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("action", [Action.DROP, Action.REJECT])
def test_a_kernel_takes_every_shape_in_an_empty_table(
    scratch: Host, nft: Libnftables, identity: Identity, granularity: Granularity, action: Action
) -> None:
    policy = LearningPolicy(name="a b", number=1, identity=identity, granularity=granularity, action=action)
    nft.run("add table inet glacic\n")
    uses = [(shape, allowed) for shape in shapes_of(policy) for allowed in (True, False)]
    for use in uses:
        nft.run(ensure_script(policy, *use))
    once = scratch.run(["nft", "list", "chain", "inet", "glacic", chain_name(policy)]).stdout
    nft.run(rewrite_script(policy, uses))
    nft.run(rewrite_script(policy, uses))
    again = scratch.run(["nft", "list", "chain", "inet", "glacic", chain_name(policy)]).stdout
    assert sorted(once.splitlines()) == sorted(again.splitlines())
    assert once.count("goto allow_learned") == len(uses) // 2
    inventory = nft.inventory()
    assert inventory is not None
    assert set(uses_in(policy, inventory.sets)) == set(uses)


@pytest.mark.parametrize(("key", "shape", "element", "raw"), ROWS)
def test_a_kernel_takes_every_kind_of_element(
    scratch: Host, nft: Libnftables, key: Key, shape: str, element: str, raw: str
) -> None:
    del shape, raw
    policy = LearningPolicy(
        name="p",
        number=1,
        identity=Identity.MAC if len(key[1]) == 6 else Identity.IP,
        granularity=Granularity.DESTINATION if key[4] else Granularity.SERVICE,
    )
    nft.run("add table inet glacic\n" + ensure_script(policy, shape_of(key), True))
    name = set_name("p", shape_of(key), True)
    nft.run(f"add element inet glacic {name} {{ {element} }}\n")
    assert "counter packets 0" in scratch.run(["nft", "list", "set", "inet", "glacic", name]).stdout
