"""The limits before a hook: one rule for each shape of key, and one for the interface behind them."""

from __future__ import annotations

import pytest

from glacic.config.model import Granularity, Identity, Rate
from glacic.config.policies import LearningPolicy
from glacic.firewall.limits import INTERFACE_FACTOR, limit_chain, limiter
from glacic.firewall.ruleset import Chain, Set
from glacic.firewall.shapes import shapes_of


@pytest.mark.parametrize("identity", list(Identity))
@pytest.mark.parametrize("granularity", list(Granularity))
def test_every_shape_of_key_has_its_set_and_the_interface_comes_last(
    identity: Identity, granularity: Granularity
) -> None:
    policy = LearningPolicy(name="p", number=1, identity=identity, granularity=granularity)
    *sets, chain = limiter(policy, "iifname", Rate(10, "minute"), "counter drop")
    assert isinstance(chain, Chain)
    assert all(isinstance(part, Set) and "size 65535" in part.spec for part in sets[:-1])
    assert len(sets) == len(chain.rules) == len(shapes_of(policy)) + 1
    assert f"iifname limit rate over {10 * INTERFACE_FACTOR}/minute" in chain.rules[-1].statement
    for shape, rule in zip(shapes_of(policy), chain.rules, strict=False):
        over = f"{{ {shape.expression} limit rate over 10/minute burst 10 packets }}"
        assert rule.statement == f"{shape.guard(identity)} update @seen_p_{shape} {over} counter drop"


@pytest.mark.parametrize(
    ("rate", "timeout"),
    [(Rate(9, "second"), "10s"), (Rate(1, "minute"), "60s"), (Rate(1, "hour"), "3600s"), (Rate(1, "day"), "86400s")],
)
def test_a_key_is_remembered_until_its_burst_is_whole_again(rate: Rate, timeout: str) -> None:
    first = limiter(LearningPolicy(name="p", number=1), "iifname", rate, "drop")[0]
    assert isinstance(first, Set)
    assert first.spec.endswith(f"flags dynamic,timeout; timeout {timeout};")


def test_a_burst_fits_into_the_kernels_field() -> None:
    chain = limiter(LearningPolicy(name="p", number=1), "iifname", Rate(2**31, "second"), "drop")[-1]
    assert isinstance(chain, Chain)
    assert f"burst {2**32 - 1} packets" in chain.rules[-1].statement


def test_the_two_variants_of_an_end_are_limited_apart() -> None:
    ip = LearningPolicy(name="DROP_INPUT", number=1, identity=Identity.IP)
    mac = LearningPolicy(name="DROP_INPUT", number=2)
    assert limit_chain(ip) != limit_chain(mac)
    names = [{part.name for part in limiter(policy, "iifname", Rate(1, "day"), "drop")} for policy in (ip, mac)]
    assert not names[0] & names[1]
