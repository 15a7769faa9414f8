"""Bandwidth limits: what each engine lets through, of its limit, by direction, rate and traffic."""

from __future__ import annotations

from bench import limits_bed
from bench.effort import Effort
from bench.limits_cells import CUBIC, MIB, Cell, Measured, cells, rows
from bench.result import Figure, Results, Row
from glacic.shaping.engine import DOWNLOAD, UPLOAD

NAME = "limits"
TITLE = "Bandwidth limits"
INTRO = """\
Two hosts and a cable; a process on one of them is in a cgroup with one limit, and sends (upload) or takes (download)
whatever it can: TCP with cubic or bbr, a flood of datagrams of 1,400 bytes at twice the limit, one flow by IPv4 and
one by IPv6, four flows. The engines are Glacic's own, a new one for each cell. Steady is what comes after the first two
seconds: ten times a round's seconds at 50 KiB/s, five times at 1 MiB/s, three times at 20 MiB/s. The first second has
the bucket that a limit begins with.

What is counted is payload, where it arrives. A limit counts IP packets: an engine that is exact to the byte shows
96.5 % of a download whose segments are counted one by one, 98 % of these datagrams, and up to 99.9 % where the kernel
hands segments over put together. The shape engine counts frames, of 14 bytes more: 95.6 % and 97 %. Thrown away is
what the engine dropped, of all that came to it (bytes; the shape engine knows packets only, and one of those may be
of 64 KiB); sent again is what TCP sent twice, of all that it sent. An upload that is dropped is still in the sender's
hands, and little of it is sent again, whatever was thrown away."""

ENGINES = ("nft", "bpf", "shape")
LANES = 12
ALONE = 2 * MIB  # bytes/s: from here on a cell has the machine to itself
_QUICK = (("nft", DOWNLOAD), ("bpf", DOWNLOAD), ("shape", UPLOAD))
_QUICK_S = 2.0 / 5  # of a round, which makes two seconds


def measure(effort: Effort) -> Results:
    """The table."""
    with limits_bed.lanes(LANES) as lanes:
        told = limits_bed.table(lanes, cells(ENGINES), effort.rounds, effort.seconds, ALONE)
    return Results(rows("limits", "achieved of a limit, steady", told))


def quick() -> Results:
    """One cell of each engine."""
    chosen = [Cell(engine, direction, MIB, CUBIC) for engine, direction in _QUICK]
    with limits_bed.lanes(len(chosen)) as lanes:
        told = limits_bed.table(lanes, chosen, 1, _QUICK_S, ALONE)
    return Results([_off(cell, values[0]) for cell, values in told.items() if not isinstance(values[0], str)])


def _off(cell: Cell, measured: Measured | str) -> Row:
    """By which factor it is off, whichever way: that is what the guard compares."""
    steady = 0.0 if isinstance(measured, str) else measured.steady
    off = max(steady, 1 / max(steady, 1e-3))
    return Row(
        name=f"limit-off-{cell.engine}",
        what=f"{cell.engine}: how far off the limit",
        figures=(Figure(contestant=cell.name, unit="% of the limit", values=(100 * steady,)),),
        ratio=(off,),
        ratio_of="off / limit",
    )
