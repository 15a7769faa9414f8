"""What the control process tells its worker: the part of a Config that the packet road needs, as plain JSON-ready data.

The worker never imports HCL. Where both roads meet: policies and their numbers are the ones the ruleset was compiled
with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from glacic.config.model import Action, Config, FailMode, Granularity, Identity, Network
from glacic.config.policies import LearningPolicy
from glacic.firewall import claims

DATABASE = "flows.db"  # in the state directory, unless `database` says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One worker's settings. Times in seconds or days as the names say; queue numbers and log groups as the
    kernel's."""

    database: str
    policies: tuple[LearningPolicy, ...]
    learning_mode: bool
    learn_for_s: int | None
    learn_max_per_source: int
    learn_max: int
    ignore_networks: tuple[str, ...]
    retention_days: int
    cache_size: int
    queues: tuple[int, ...]  # empty in nflog mode
    sink: int | None  # claims.sink_queue, where an inline rate limit needs it
    groups: tuple[int, ...]  # empty in inline mode
    queue_full_open: bool
    engine_error_open: bool
    packet_window: int
    durable: bool

    def networks(self) -> tuple[Network, ...]:
        """`ignore_networks` as networks."""
        return tuple(ip_network(text) for text in self.ignore_networks)


def settings_of(config: Config, policies: Iterable[LearningPolicy], state_dir: Path) -> Settings:
    """The worker's part of a configuration. `policies` as the ruleset numbers them."""
    learning = config.rule_learning
    chosen = tuple(policies)
    numbers = tuple(range(learning.log_group, learning.log_group + learning.queues))
    inline = learning.enabled and learning.inline_mode
    return Settings(
        database=str(learning.database or state_dir / DATABASE),
        policies=chosen,
        learning_mode=learning.learning_mode,
        learn_for_s=learning.learn_for_s,
        learn_max_per_source=learning.learn_max_per_source,
        learn_max=learning.learn_max,
        ignore_networks=tuple(str(network) for network in learning.ignore_networks),
        retention_days=learning.retention_days,
        cache_size=learning.cache_size,
        queues=numbers if inline else (),
        sink=claims.sink_queue(learning.log_group, learning.queues) if inline and learning.rate_limit else None,
        groups=(learning.log_group,) if learning.enabled and not learning.inline_mode else (),
        queue_full_open=learning.queue_full is FailMode.OPEN,
        engine_error_open=learning.engine_error is FailMode.OPEN,
        packet_window=learning.packet_window,
        durable=learning.durable,
    )


def to_message(settings: Settings) -> dict[str, Any]:
    """JSON-ready; `from_message` is its inverse."""
    return asdict(settings)


def from_message(message: dict[str, Any]) -> Settings:
    """The settings in a message of our own making."""
    policies = tuple(
        LearningPolicy(
            name=policy["name"],
            number=policy["number"],
            action=Action(policy["action"]),
            identity=Identity(policy["identity"]),
            granularity=Granularity(policy["granularity"]),
        )
        for policy in message["policies"]
    )
    lists = {name: tuple(message[name]) for name in ("ignore_networks", "queues", "groups")}
    return Settings(**{**message, **lists, "policies": policies})
