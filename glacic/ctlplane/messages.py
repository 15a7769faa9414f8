"""Flow keys in the messages between control process and worker."""

from __future__ import annotations

from typing import Any

from glacic.learning.flow import FlowKey


def pack_key(key: FlowKey) -> list[Any]:
    """A flow key as JSON-ready data, addresses in hex; `unpack_key` is its inverse."""
    return [key.policy, key.source.hex(), key.protocol, key.port, key.destination.hex()]


def unpack_key(row: list[Any]) -> FlowKey:
    """The flow key in a message of our own making."""
    policy, source, protocol, port, destination = row
    return FlowKey(policy, bytes.fromhex(source), protocol, port, bytes.fromhex(destination))
