"""Step 3 of road 1: nodes become the model, block by block.

Every value is checked for itself here (type, range, grammar, known names); what concerns two blocks or two
attributes of a rule is validate.py's. A block that is wrong in parts is still decoded, with defaults in their place,
so that everything else in it and everything that refers to it can be checked in the same pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from glacic.config import values
from glacic.config.decode_limits import decode_default_limit, decode_limit
from glacic.config.decode_nat import decode_nat
from glacic.config.decode_rules import decode_rule, text_element
from glacic.config.decode_sets import decode_set
from glacic.config.include import INCLUDE
from glacic.config.lists import Lists
from glacic.config.model import (
    DROP_FORWARD,
    DROP_INPUT,
    FIREWALL,
    RESERVED_CT_MARK,
    Action,
    Config,
    FailMode,
    Granularity,
    Identity,
    Integrity,
    Policy,
    RuleLearning,
    Zone,
)
from glacic.config.overlap import outermost_interfaces, outermost_networks
from glacic.config.reader import Located, Reader, Report, describe, label_key, labels
from glacic.config.services import MANAGEMENT, SERVICES
from glacic.config.source import Source, Span, did_you_mean
from glacic.config.syntax import Block, Body
from glacic.config.values import Invalid

NAME_MAX = 120  # bytes: a log prefix holds 127, and ": " follows a policy's name
DESCRIPTION_MAX = 1024  # bytes
NUMBER_MAX = 65535  # of a queue or a log group: 16 bits, linux/netfilter/nfnetlink_queue.h, nfnetlink_log.h
QUEUES_MAX = 256
FLOWS_MAX = 10_000_000
RETENTION_MAX_DAYS = 36_500
PACKET_WINDOW_MAX = 10_000


def decode(body: Body, source: Source, report: Report, lists: Lists) -> Config:
    """The whole configuration; `lists` reads the files of elements that sets name. What could not be decoded is in
    `report`, and the result is then only good for further checks."""
    reader = Reader(body, source.span(0, 0), report, "the configuration")
    reader.taken(INCLUDE)
    learning = [_rule_learning(block, report) for block in reader.only("rule_learning")]
    default_limits = [decode_default_limit(block, report) for block in reader.only("default_limit")]
    sets = tuple(found for block in reader.blocks("set") if (found := decode_set(block, report, lists)))
    config = Config(
        path=Path(source.name),
        integrity=_integrity(reader, learning[0] if learning else RuleLearning()),
        flowtable=reader.flag("flowtable"),
        rule_learning=learning[0] if learning else RuleLearning(),
        zones=tuple(zone for block in reader.blocks("zone") if (zone := _zone(block, report))),
        policies=tuple(policy for block in reader.blocks("policy") if (policy := _policy(block, report))),
        sets=sets,
        nats=tuple(nat for block in reader.blocks("nat") if (nat := decode_nat(block, report, sets))),
        limits=tuple(limit for block in reader.blocks("limit") if (limit := decode_limit(block, report))),
        default_limit=default_limits[0] if default_limits else None,
        spans=reader.spans,
    )
    reader.finish()
    return config


def _integrity(reader: Reader, learning: RuleLearning) -> Integrity:
    """Of the file, or of rule_learning, where people look for it first."""
    found = reader.choice("integrity", Integrity, learning.integrity)
    if reader.has("integrity") and "integrity" in learning.spans:
        reader.refuse("integrity", "integrity is written here and in rule_learning", "leave one of them out")
    return found


def open_block(block: Block, report: Report, where: str) -> Reader:
    """A Reader over a block's body, with the places of its header and labels."""
    reader = Reader(block.body, block.span, report, where)
    reader.spans |= {label_key(index): label.span for index, label in enumerate(block.labels)}
    return reader


# rule_learning


def _rule_learning(block: Block, report: Report) -> RuleLearning:
    labels(block, (), report, str)
    reader = open_block(block, report, "rule_learning")
    learning = RuleLearning(
        enabled=reader.flag("enabled", default=True),
        learning_mode=reader.flag("learning_mode"),
        inline_mode=reader.flag("inline_mode"),
        log_group=reader.number("log_group", 0, 0, NUMBER_MAX),
        queues=reader.number("queues", 1, 1, QUEUES_MAX),
        learn_for_s=reader.text("learn_for", values.duration, 'a duration, "24h"'),
        learn_max_per_source=reader.number("learn_max_per_source", 256, 1, FLOWS_MAX),
        learn_max=reader.number("learn_max", 100_000, 1, FLOWS_MAX),
        rate_limit=reader.text("rate_limit", values.rate, 'a rate, "10/minute"'),
        ignore_networks=tuple(found for found, _ in reader.items("ignore_networks", text_element(values.network))),
        retention_days=reader.number("retention_days", 30, 1, RETENTION_MAX_DAYS),
        cache_size=reader.number("cache_size", 10_000, 16, FLOWS_MAX),
        fail_mode=reader.choice("fail_mode", FailMode, FailMode.OPEN),
        queue_full=reader.choice("queue_full", FailMode, FailMode.CLOSED),
        engine_error=reader.choice("engine_error", FailMode, FailMode.CLOSED),
        packet_window=reader.number("packet_window", 0, 0, PACKET_WINDOW_MAX),
        offload_mark=_offload_mark(reader),
        database=reader.text("database", _database, 'a path, "/var/lib/glacic/flows.db"'),
        durable=reader.flag("durable"),
        fail_open_keep=reader.flag("fail_open_keep"),
        integrity=reader.choice("integrity", Integrity, Integrity.REPORT),
        spans=reader.spans,
    )
    _check_queue_numbers(reader, learning)
    reader.finish()
    return learning


def _offload_mark(reader: Reader) -> int:
    def parse(located: Located) -> int:
        value = located.value
        if isinstance(value, str):
            try:
                value = int(value, 16 if value.lower().startswith("0x") else 10)
            except ValueError:
                raise Invalid(f'"{value}" is not a mark', 'write the bits as "0x00200000"') from None
        if isinstance(value, bool) or not isinstance(value, int):
            raise Invalid(f"offload_mark must be a mark, not {describe(value)}", 'write the bits as "0x00200000"')
        if not 0 < value < 1 << 32:
            raise Invalid("offload_mark is out of range", "a connection mark has 32 bits, and at least one must be set")
        if value & RESERVED_CT_MARK:
            advice = f"the bits {RESERVED_CT_MARK:#010x} of the connection mark are Glacic's own: choose others"
            raise Invalid(f"offload_mark takes the reserved bits {value & RESERVED_CT_MARK:#010x}", advice)
        return value

    found = reader.items("offload_mark", parse, empty="write one mark")
    if len(found) > 1:
        reader.refuse("offload_mark", "offload_mark must be one value, not a list", 'write the bits as "0x00200000"')
    return found[0][0] if found else RuleLearning().offload_mark


def _database(text: str) -> Path:
    values.line_of_text(text, 4095)  # PATH_MAX - 1, linux/limits.h
    if not PurePosixPath(text).is_absolute():
        raise Invalid(
            f'"{text}" is not an absolute path',
            "begin it with a slash, or leave it out: the state directory is the default",
        )
    if text.endswith("/"):
        raise Invalid(f'"{text}" is a directory', "name a file in it")
    return Path(text)


def _check_queue_numbers(reader: Reader, learning: RuleLearning) -> None:
    last = learning.log_group + learning.queues - 1
    at = "queues" if reader.has("queues") else "log_group"
    if last > NUMBER_MAX:
        summary = f"{learning.queues} queues from {learning.log_group} end at {last}"
        reader.refuse(at, summary, f"the last queue is {NUMBER_MAX}: write a smaller log_group or fewer queues")
    elif learning.inline_mode and learning.rate_limit and last == NUMBER_MAX:
        summary = "rate_limit needs one more queue, behind the last one"
        reader.refuse("rate_limit", summary, f"the last queue is {NUMBER_MAX}: write a smaller log_group")


# Zones


def _zone(block: Block, report: Report) -> Zone | None:
    found = labels(block, ("NAME",), report, _zone_name)
    reader = open_block(block, report, f'zone "{found[0]}"' if found else "this zone")
    if reader.has("interface") and reader.has("interfaces"):
        later = max(("interface", "interfaces"), key=lambda name: reader.spans[name].start)
        reader.refuse(later, "interface and interfaces are both written", "write all of them in interfaces")
    interfaces = _interfaces(reader)
    no_network = "name a network, or leave it out where interfaces alone make the zone"
    networks = outermost_networks(reader.items("networks", text_element(values.network), empty=no_network))
    reader.keep_elements("networks", networks)
    zone = Zone(
        name=found[0] if found else "",
        interfaces=tuple(name for name, _ in interfaces),
        networks=tuple(network for network, _ in networks),
        external=reader.flag("external"),
        antispoof=reader.flag("antispoof"),
        identity=reader.choice("identity", Identity, Identity.MAC),
        services=_vocabulary(reader, "services", SERVICES, ("management", MANAGEMENT), report),
        management=_vocabulary(reader, "management", MANAGEMENT, ("services", SERVICES), report),
        description=_description(reader),
        spans=reader.spans,
    )
    reader.finish()
    return zone if found else None


def _interfaces(reader: Reader) -> list[tuple[str, Span]]:
    """What `interface` or `interfaces` names, without what a wildcard among them covers."""
    empty = "name an interface, or leave it out where networks alone make the zone"
    several = outermost_interfaces(reader.items("interfaces", text_element(values.interface), empty=empty))
    reader.keep_elements("interfaces", several)
    single = reader.text("interface", values.interface, "a name in quotes; several go into interfaces = [...]")
    if single is None:
        return several
    found = [(single, reader.spans["interface"])]
    reader.keep_elements("interface", found)
    return found


def _zone_name(text: str) -> str:
    if text == FIREWALL:
        raise Invalid(f'"{FIREWALL}" is the machine itself', "choose another name for this zone")
    return values.name(text, NAME_MAX)


def _description(reader: Reader) -> str:
    return reader.text("description", lambda text: values.line_of_text(text, DESCRIPTION_MAX)) or ""


def _vocabulary(
    reader: Reader, type_: str, known: Mapping[str, object], other: tuple[str, Mapping[str, object]], report: Report
) -> tuple[str, ...]:
    """A block of `name = true` whose names come from services.py; `other` is the block that people take for it."""
    wanted: dict[str, bool] = {}
    for block in reader.only(type_):
        labels(block, (), report, str)
        inner = Reader(block.body, block.span, report, type_)
        for name, span, on in inner.flags():
            key = name.replace("-", "_")
            if key in known:
                wanted[key] = on
            elif key in other[1]:
                advice = f"it is written in `{other[0]} {{ {name} = true }}`"
                report.error(span, f"{name} is not one of the {type_}", advice)
            else:
                advice = did_you_mean(key, known) or did_you_mean(key, other[1]) or f"known are {', '.join(known)}"
                report.error(span, f"unknown name {name} in {type_}", advice)
        inner.finish()
    return tuple(name for name, on in wanted.items() if on)


# Policies


def _policy(block: Block, report: Report) -> Policy | None:
    found = labels(block, ("FROM", "TO"), report, lambda text: text)
    reader = open_block(block, report, f'policy "{found[0]}" "{found[1]}"' if found else "this policy")
    name = reader.text("name", _policy_name)
    learn = reader.flag("learn")
    policy = Policy(
        source=found[0] if found else "",
        destination=found[1] if found else "",
        name=name or (f"{found[0]}_{found[1]}" if found else ""),
        action=reader.choice("action", Action, Action.DROP),
        learn=None if not reader.has("learn") or reader.broken("learn") else learn,
        granularity=reader.choice("granularity", Granularity, Granularity.SERVICE),
        description=_description(reader),
        rules=tuple(rule for found in reader.blocks("rule") if (rule := decode_rule(found, report))),
        spans=reader.spans,
    )
    reader.finish()
    return policy if found else None


def _policy_name(text: str) -> str:
    if text in {DROP_INPUT, DROP_FORWARD}:
        raise Invalid(f'"{text}" is reserved', "it is the name of what no policy claims: choose another")
    return values.name(text, NAME_MAX)
