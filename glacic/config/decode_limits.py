"""Step 3 of road 1, continued: limit and default_limit blocks become the model.

    limit "backup" {
      unit     = "backup.service"
      upload   = "5 mbit"
      download = "2 MiB/s"
    }

As in decode.py every value is checked for itself; what two of them have to do with each other is validate_limits.py's.
"""

from __future__ import annotations

from enum import StrEnum

from glacic.config import cgroups, rates, values
from glacic.config.decode_rules import DESCRIPTION_MAX, RULE_NAME_MAX
from glacic.config.model import DefaultLimit, Limit, LimitEngine, LimitKind, Traffic
from glacic.config.reader import Reader, Report, label_key, labels
from glacic.config.syntax import Block
from glacic.config.values import Invalid

RESERVED = "default:"  # begins the names of what default_limit makes
RATES = ("upload", "download")


class Per(StrEnum):
    """What default_limit gives a bucket of its own."""

    UNIT = "unit"


def decode_limit(block: Block, report: Report) -> Limit | None:
    """One limit block; None where its label cannot be read."""
    found = labels(block, ("NAME",), report, limit_name)
    reader = Reader(block.body, block.span, report, f'limit "{found[0]}"' if found else "this limit")
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    kind, target = _target(reader)
    upload, download = (_rate(reader, name) for name in RATES)
    limit = Limit(
        name=found[0] if found else "",
        kind=kind,
        target=target,
        upload=upload,
        download=download,
        engine=reader.choice("engine", LimitEngine, LimitEngine.AUTO),
        traffic=reader.choice("traffic", Traffic, Traffic.ALL),
        interface=reader.text("interface", one_interface) or "",
        description=reader.text("description", lambda text: values.line_of_text(text, DESCRIPTION_MAX)) or "",
        spans=reader.spans,
    )
    reader.finish()
    return limit if found else None


def decode_default_limit(block: Block, report: Report) -> DefaultLimit:
    """The default_limit block."""
    labels(block, (), report, str)
    reader = Reader(block.body, block.span, report, "default_limit")
    reader.choice("per", Per, Per.UNIT)
    upload, download = (_rate(reader, name) for name in RATES)
    limit = DefaultLimit(
        upload=upload,
        download=download,
        engine=reader.choice("engine", LimitEngine, LimitEngine.AUTO),
        traffic=reader.choice("traffic", Traffic, Traffic.ALL),
        interface=reader.text("interface", one_interface) or "",
        spans=reader.spans,
    )
    reader.finish()
    return limit


def _target(reader: Reader) -> tuple[LimitKind, str]:
    """What is limited: the first of unit, slice and cgroup that is written; "" where that cannot be read."""
    read = {
        kind: reader.text(kind, cgroups.PARSERS[kind], cgroups.example(kind).partition(" = ")[2]) for kind in LimitKind
    }
    kind = next((kind for kind in LimitKind if reader.has(kind)), LimitKind.UNIT)
    return kind, read[kind] or ""


def _rate(reader: Reader, name: str) -> int:
    return (
        reader.text(name, rates.parse_rate, f"a rate, {rates.EXAMPLES}", number='a rate has a unit: write "{} mbit"')
        or 0
    )


def one_interface(text: str) -> str:
    """The name of one interface: limits know no wildcards."""
    if text.endswith("*"):
        raise Invalid(f'"{text}" stands for several interfaces', "write the name of one")
    return values.interface(text)


def limit_name(text: str) -> str:
    """What a limit can be called."""
    if text.startswith(RESERVED):
        raise Invalid(
            f'"{text}" is the name of a bucket that default_limit makes',
            f'choose another, as "{text.removeprefix(RESERVED) or "backup"}"',
        )
    return values.name(text, RULE_NAME_MAX)
