"""The inside interface goes away and comes back under another index, as when a driver or a link is set up anew."""

from __future__ import annotations

from collections.abc import Iterator

from faults import trial
from faults.bed import Bed, config
from faults.result import EITHER, STOP, Case
from faults.trial import Trial
from glacic.lab.home import ROUTER_LAN, ROUTER_LAN_6, ROUTER_LAN_MAC
from glacic.lab.net import Port

NAME = "interface"
TITLE = "Interface gone, and back under another index"
PLACES = ("here", "vm")
PROMISE = """\
Zones name interfaces, and the ruleset asks for names, not for indexes: while the interface is away nothing comes
through it; when it is back, under whatever index, everything is decided as before. Nothing has to be reloaded, and
what was learned stays."""
ADVICE = "Nothing."


def measure() -> Iterator[Case]:
    """Inline."""
    yield trial.run(gone())


def gone() -> Trial:
    """lan0 is deleted and made anew."""
    road = dict.fromkeys(("learned", "established", "unknown", "quiet"), EITHER)  # there is none
    return Trial(
        setting="the zone's one interface",
        configuration=config(),
        begin=_remove,
        end=_bring_back,
        lasts_s=1.0,
        promised={**road, "denied": STOP},
    )


def _remove(at: Bed) -> None:
    at.home.router.ip("link delete lan0")


def _bring_back(at: Bed) -> None:
    addresses = (f"{ROUTER_LAN}/24", f"{ROUTER_LAN_6}/64")
    at.home.router.ip("link add filler type veth peer name filler1")  # takes the next index
    at.home.network.plug(Port(at.home.router, "lan0", ROUTER_LAN_MAC, addresses), at.home.network.hosts["switch"])
