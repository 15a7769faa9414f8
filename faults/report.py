"""The report: docs/reliability.md, from what is kept of all faults' runs. Nothing else goes into its tables.

Refuses to measure, and to leave out what is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from faults.result import Case, Count, Measured

_HEAD = """\
# Reliability

What happens to packets while something fails, what an operator sees of it, and what is lost. `make faults` measures all
of this anew (as root, on Linux; `ROWS="killed disk_full"` for some) and writes this file; it ends with an error where a
promise is broken. A short part of it runs with the tests.

## How to read it

- Each fault is made while packets of every kind go through the firewall: *new flows* (each packet is one that nobody
  has seen), a *learned* flow (each packet a new connection), an *established* connection, a flow that a person has
  *denied*, and packets from *outside*, to the firewall and to what lies behind it. Each is a datagram, answered or not.
- What was learned or is established was promised to pass, what is denied or comes from outside was promised not to: in
  every fault. What new flows were promised depends on the setting, and stands in the table.
- *Accepted*: answered. *Dropped*: not answered, as promised. *Lost*: not answered, although it should have been.
  *Wrongly passed*: answered, although it should not have been; there are none, or the row says **broken**.
- *Back after*: from the end of the fault (where it ends by itself: from its beginning) until `glacic status` says
  `running` and new flows are decided again.
- *Namespace*: network namespaces of the machine; where its kernel lacks nftables' `queue` statement, an iptables rule
  hands the packets to the same queue. *VM*: a stock Debian kernel in an emulated machine, with the statement itself, 10
  to 20 times slower: its counts mean something, its seconds do not.
"""
_LOST = """\
## What is lost, and why

- **Packets**: those that wait in the queue when its listener ends (at most 1,024). The kernel drops them with the
  queue; a TCP client sends its SYN again after a second.
- **Learned flows**: those of the last 200 ms (the group commit interval) when the service is killed or the power fails,
  unless `durable = true`. They are learned again by their next packet while learning is on, else they wait as pending.
- **Counters of rules**: a reload begins them at zero, unless the rule says `counter = true`. Those of learned flows
  stay.
"""


class Module(Protocol):
    """What a file in faults/rows says of itself."""

    NAME: str
    TITLE: str
    PROMISE: str
    ADVICE: str


def write(modules: Sequence[Module], measured: Mapping[str, Measured], place: Path) -> Path:
    """reliability.md in this folder; returns the file."""
    path = place / "reliability.md"
    path.write_text(render(modules, measured))
    return path


def render(modules: Sequence[Module], measured: Mapping[str, Measured]) -> str:
    """The text."""
    known = [module for module in modules if module.NAME in measured]
    parts = [_HEAD, "## The table\n", _table(_SUMMARY, _summary(known, measured)), _LOST]
    for module in known:
        parts += _section(module, measured[module.NAME])
    missing = [module.TITLE for module in modules if module.NAME not in measured]
    if missing:
        parts.append(f"## Not measured\n\n{'; '.join(missing)}.\n")
    return "\n".join(parts)


_SUMMARY = (
    *(
        "fault",
        "setting",
        "where",
        "promised to new flows",
        "new flows: accepted / dropped / lost",
        "learned, established: accepted / lost",
    ),
    *("forbidden: sent / wrongly passed", "back after", "learned flows lost", ""),
)


def _summary(modules: Sequence[Module], measured: Mapping[str, Measured]) -> Iterator[tuple[str, ...]]:
    for module in modules:
        for number, case in enumerate(measured[module.NAME].cases):
            title = f"[{module.TITLE}](#{_anchor(module.TITLE)})" if number == 0 else ""
            verdict = "**broken**" if case.broken else "kept"
            yield (
                title,
                f"`{case.setting}`",
                _where(case),
                _promised(case),
                *_packets(case),
                _back(case),
                _flows(case),
                verdict,
            )


def _promised(case: Case) -> str:
    """What `unknown` packets were to get; what always goes for the others stands above the table."""
    words = {"pass": "accepted", "stop": "dropped", "either": "either, see below"}
    return words[case.traffic["unknown"].promised] if "unknown" in case.traffic else "see below"


def _packets(case: Case) -> tuple[str, str, str]:
    new = [case.traffic[kind] for kind in ("unknown", "quiet") if kind in case.traffic]
    known = [count for kind, count in case.traffic.items() if kind in _KNOWN]
    forbidden = [count for kind, count in case.traffic.items() if kind in _FORBIDDEN]
    return (
        f"{_sum(new, 'answered')} / {_sum(new, 'dropped')} / {_sum(new, 'lost')}" if new else "",
        f"{_sum(known, 'answered')} / {_sum(known, 'lost')}" if known else "",
        f"{_sum(forbidden, 'sent')} / {_sum(forbidden, 'wrong')}" if forbidden else "",
    )


_KNOWN = ("learned", "established", "allowed by a rule")
_FORBIDDEN = ("denied", "outside", "to the router", "forbidden")


def _sum(counts: Sequence[Count], what: str) -> str:
    return f"{sum(getattr(count, what) for count in counts):,}"


def _where(case: Case) -> str:
    return "VM" if "emulated" in case.kernel else "namespace"


def _back(case: Case) -> str:
    return "" if case.recovered_s is None else f"{case.recovered_s:.1f} s"


def _flows(case: Case) -> str:
    return "" if case.lost_flows is None else f"{case.lost_flows} of {case.learned_before}"


def _section(module: Module, measured: Measured) -> Iterator[str]:
    yield f"## {module.TITLE}\n"
    yield f"**Promised.** {module.PROMISE.strip()}\n"
    yield f"**What to do.** {module.ADVICE.strip()}\n"
    yield _table(
        ("setting", "kernel", "`glacic status`", "log: warnings and errors", "also measured"), _lines(measured)
    )
    for case in measured.cases:
        for text in case.broken:
            yield f"**Broken** ({case.setting}, {_where(case)}): {text}.\n"
    yield f"{measured.day}, Glacic {measured.version}, {measured.seconds:.0f} s.\n"


def _lines(measured: Measured) -> Iterator[tuple[str, ...]]:
    for case in measured.cases:
        said = "<br>".join(f"{times} x {_cell(event)}" for event, times in case.said.items())
        numbers = "<br>".join(f"{what}: {_cell(value)}" for what, value in case.numbers.items())
        yield f"`{case.setting}`", case.kernel, "<br>".join(map(_cell, case.status)), said, numbers


def _cell(text: str) -> str:
    """Text of a program, harmless in a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:300]


def _anchor(title: str) -> str:
    return "".join(char for char in title.lower().replace(" ", "-") if char.isalnum() or char == "-")


def _table(head: Sequence[str], lines: Iterator[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)) + "\n"
