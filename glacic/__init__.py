"""Glacic: a firewall service for Linux that learns.

Two roads run through the code (docs/architecture.md draws them):

    Road 1, config to kernel     file -> syntax -> decode -> validate -> Config -> compile -> Ruleset -> render -> apply
    Road 2, packet to verdict    netlink bytes -> Packet -> FlowKey -> Engine -> Decision -> kernel
"""

__version__ = "0.1.0"
