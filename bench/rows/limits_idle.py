"""What limits cost the packets of cgroups that have none: 100 limits on others, and the parts of that."""

from __future__ import annotations

import contextlib
import statistics

from bench.effort import Effort
from bench.idle_bed import LIMITS, SIZE, Having, Pair, idle_bed, pairs
from bench.result import Figure, Results, Row
from glacic.shaping.engine import DOWNLOAD, UPLOAD

NAME = "limits-idle"
TITLE = "What limits cost those who have none"
INTRO = f"""\
{LIMITS} limits on {LIMITS} cgroups, none of which sends. Another cgroup, without a limit, sends datagrams of
{SIZE} bytes as fast as it can (upload), or takes them (download). Processor time of a packet, both ends of the cable,
against blocks without any limit right before and after; each round's value is the median of such pairs. What two runs
without limits differ by stands first (`nothing, again`). Below the engines: the parts of the nft engine's price, as
tables written by hand, each with one part more.

A hook alone costs something, and finding the socket's cgroup costs most, so no table of nftables can be free. What can
be done is done: one lookup for each level of the hierarchy in use, whatever the number of limits, no hook in a
direction without limits, and no table at all while no limited unit runs. The bpf engine is attached to the limited
cgroups, and its programs run for no others. `auto` takes nft nevertheless: a tenth of a microsecond is for those who
count single datagrams ([decision 0011](decisions/0011-limits-in-a-table-of-their-own.md) could not measure it in bulk
TCP), and bpf takes a service that may load programs. The target's 1.02 is this bench's choice of what counts as
nothing."""

NFT, BPF, SHAPE, AGAIN = "nft", "bpf", "shape", "nothing, again"
NOISE = 0.02  # so much more than 1 counts as nothing: twice what two runs without limits differ by at most
PAIRS = 5  # for a round
BLOCK = 0.1  # of a round's seconds
_PARTS: dict[str, Having] = {
    "part: a hook with an empty chain": lambda bed: bed.table(),
    "part: and the rule for loopback": lambda bed: bed.table("LO accept"),
    "part: and finding the socket's cgroup": lambda bed: bed.table("LO accept", "socket cgroupv2 level 2 ONE accept"),
    "part: and looking it up": lambda bed: bed.table("LO accept", "socket cgroupv2 level 2 vmap MAP"),
}
VARIANTS: dict[str, Having] = {
    AGAIN: lambda _: contextlib.nullcontext(),
    NFT: lambda bed: bed.engine("nft"),
    BPF: lambda bed: bed.engine("bpf"),
    **_PARTS,
}
# The shape engine needs pieces for downloads that not every kernel has, and its uploads are the dearer ones.
UPLOADS: dict[str, Having] = {SHAPE: lambda bed: bed.engine("shape", UPLOAD)}


def measure(effort: Effort) -> Results:
    """Both directions."""
    made = []
    with idle_bed() as bed:
        for direction in (UPLOAD, DOWNLOAD):
            variants = VARIANTS | (UPLOADS if direction == UPLOAD else {})
            values: dict[str, list[Pair]] = {name: [] for name in variants}
            for _ in range(effort.rounds):
                tried = [pairs(bed, direction, variants, BLOCK * effort.seconds) for _ in range(PAIRS)]
                for name in variants:
                    values[name].append(_middle([one[name] for one in tried]))
            made.append(row(direction, values))
    return Results(made)


def _middle(tried: list[Pair]) -> Pair:
    """The pair with the median ratio."""
    return sorted(tried, key=lambda pair: pair.having / pair.without)[len(tried) // 2]


def row(direction: str, values: dict[str, list[Pair]]) -> Row:
    """Judged by nft, the default."""
    order = [name for name in (AGAIN, NFT, BPF, SHAPE, *_PARTS) if name in values]
    ratios = {name: tuple(pair.having / pair.without for pair in values[name]) for name in order}
    figures = [Figure(contestant=name, unit="x without limits", values=ratios[name]) for name in order]
    figures += [
        Figure(contestant=name, unit="ns more", values=tuple(pair.having - pair.without for pair in values[name]))
        for name in order
    ]
    free = [name for name in (NFT, BPF) if statistics.median(ratios[name]) <= 1 + NOISE]
    without = statistics.median(pair.without for name in order for pair in values[name])
    said = f"Within the target, of nft and bpf: {', '.join(free) or 'none'}."
    return Row(
        name=f"limits-idle-{direction}",
        what=f"{direction} of a cgroup without a limit, {LIMITS} others having one",
        figures=tuple(figures),
        target=f"<= {1 + NOISE:.2f} x",
        ratio=ratios[NFT],
        ratio_of=f"{NFT} / without limits",
        met=NFT in free,
        note=f"A packet takes {without:.0f} ns without limits. {said}",
    )
