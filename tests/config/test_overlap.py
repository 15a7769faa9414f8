"""Which networks lie in which, and which interface names can be the same: against slow twins."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from glacic.config.overlap import (
    NetworkIndex,
    covers,
    intersect,
    outermost_interfaces,
    outermost_networks,
    share,
)
from glacic.config.source import Source

SPAN = Source("a.hcl", "").span(0, 0)

networks = st.builds(
    lambda number, prefix: IPv4Network((number << 24 & 0xFFFFFFFF, prefix), strict=False),
    st.integers(0, 255),
    st.integers(0, 12),
)
names = st.text(alphabet="ab", min_size=1, max_size=3)
patterns = st.one_of(names, names.map(lambda name: f"{name}*"))


@given(st.lists(networks, max_size=12), networks)
def test_the_index_finds_what_a_walk_would_find(known: list[IPv4Network], asked: IPv4Network) -> None:
    index: NetworkIndex[int] = NetworkIndex()
    for number, network in enumerate(known):
        index.add(network, number)
    assert sorted(index.containing(asked)) == [at for at, network in enumerate(known) if asked.subnet_of(network)]


@given(networks, networks)
def test_networks_intersect_when_they_overlap(first: IPv4Network, second: IPv4Network) -> None:
    assert intersect(first, second) == first.overlaps(second)


@given(st.lists(networks, max_size=12))
def test_outermost_networks_cover_all_and_none_covers_another(found: list[IPv4Network]) -> None:
    kept = [network for network, _ in outermost_networks([(network, SPAN) for network in found])]
    assert all(any(network.subnet_of(outer) for outer in kept) for network in found)
    assert not any(a.overlaps(b) for at, a in enumerate(kept) for b in kept[:at])


@given(patterns, patterns)
def test_patterns_share_an_interface_when_some_name_fits_both(first: str, second: str) -> None:
    def fits(pattern: str, name: str) -> bool:
        return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern

    candidates = [first.rstrip("*"), second.rstrip("*")]
    assert share(first, second) == any(fits(first, name) and fits(second, name) for name in candidates)
    assert covers(first, second) <= share(first, second)


def test_a_wildcard_takes_in_the_names_it_covers() -> None:
    found = [("wlan0", SPAN), ("lan0", SPAN), ("wl*", SPAN), ("wlan1", SPAN), ("lan0", SPAN)]
    assert [name for name, _ in outermost_interfaces(found)] == ["lan0", "wl*"]
