"""Road 1, between render and the kernel: a ruleset takes the place of another without a packet between the two.

One transaction alone does not do it. The kernel swaps all rules at once, and still (measured, kernel 6.18, 20,000 new
connections a second, 50 reloads): a set of ranges that came with the transaction was found empty for a moment after it,
and up to 200 connections were refused that both rulesets allow; and a packet that was still on its way through the old
rules looked into an old verdict map that was gone, and was dropped. So nothing that decides may come or go in the
transaction that switches over:

    stage      the new ruleset, whole, under other names, beside the old one; nothing leads to it
    switch     each base chain begins with a `goto` to its staged twin: in force from here on, in one transaction
    settle     behind that, the old ruleset becomes the new one under its own names; no packet is there
    uncover    the `goto`s go: the same ruleset decides under its own names
    clear      what was staged goes; no packet is there any more

Refuses to read rules: which words of a statement are names of chains and sets is known from the ruleset itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.render import render_parts, stale
from glacic.firewall.ruleset import Chain, Flowtable, Inventory, Part, Rule, Ruleset, Set

PREFIX = "staged_"
_OURS = f"{FAMILY} {TABLE}"
_QUOTED = re.compile(r'("[^"\n]*")')  # names, comments and prefixes in a statement: quoting.py lets no quote into one
_FLOW_TABLE = "flow add @"
_NAMED = re.compile(r"(\bgoto |\bjump |@)([A-Za-z_][A-Za-z0-9_]*)")


def has_leftovers(present: Inventory) -> bool:
    """Whether somebody was ended in the midst of this: the table is replaced at once then, as `render_live` does it."""
    return any(name.startswith(PREFIX) for name in present.chains | present.sets)


def stage(ruleset: Ruleset) -> str:
    """The ruleset under other names. Learned sets and counters are the ones that there are."""
    return f"table {_OURS}\n\n{render_parts(_staged(ruleset).parts)}"


def switch(ruleset: Ruleset, present: Inventory) -> str:
    """From the old ruleset to the staged one. What only the old one has at a hook decides nothing any more."""
    lines = []
    for chain in _bases(ruleset):
        if chain.name not in present.chains:
            lines.append(f"add chain {_OURS} {chain.name} {{ {chain.hook} }}")
        lines.append(f"insert rule {_OURS} {chain.name} goto {PREFIX}{chain.name}")
    gone = present.bases - {chain.name for chain in _bases(ruleset)}
    lines += [f"insert rule {_OURS} {name} accept" for name in sorted(gone)]
    return "\n".join(lines) + "\n"


def settle(ruleset: Ruleset, present: Inventory) -> str:
    """The ruleset under its own names, behind the `goto`s; what is stale goes."""
    lines = [f"flush chain {_OURS} {name}" for name in sorted(present.chains.union(base_names(ruleset)))]
    lines += [f"add rule {_OURS} {chain.name} goto {PREFIX}{chain.name}" for chain in _bases(ruleset)]
    return "\n".join([*lines, *stale(ruleset, present)]) + f"\n\n{render_parts(ruleset.parts)}"


def uncover(heads: Mapping[str, int]) -> str:
    """The first rules of these chains go, by their handles."""
    return "".join(f"delete rule {_OURS} {chain} handle {handle}\n" for chain, handle in heads.items())


def covered(ruleset: Ruleset, present: Inventory) -> list[str]:
    """The chains of the old ruleset that `switch` has put a first rule into."""
    return sorted(present.chains.intersection(base_names(ruleset)) | present.bases)


def back(ruleset: Ruleset, present: Inventory, heads: Mapping[str, int]) -> str:
    """What `switch` did, undone: the old ruleset decides again, which is still there."""
    new = [name for name in base_names(ruleset) if name not in present.chains]
    return uncover(heads) + "".join(f"flush chain {_OURS} {name}\ndelete chain {_OURS} {name}\n" for name in new)


def clear(ruleset: Ruleset) -> str:
    """What was staged goes."""
    chains = [PREFIX + chain.name for chain in ruleset.chains()]
    sets = [PREFIX + part.name for part in ruleset.sets() if not part.kept]
    lines = [f"flush chain {_OURS} {name}" for name in chains]
    lines += [f"delete chain {_OURS} {name}" for name in chains]
    lines += [f"delete set {_OURS} {name}" for name in sets]
    return "\n".join(lines) + "\n"


def base_names(ruleset: Ruleset) -> list[str]:
    """The chains that hang at a hook."""
    return [chain.name for chain in _bases(ruleset)]


def _bases(ruleset: Ruleset) -> list[Chain]:
    return [chain for chain in ruleset.chains() if chain.hook is not None]


def _staged(ruleset: Ruleset) -> Ruleset:
    names = {chain.name for chain in ruleset.chains()} | {part.name for part in ruleset.sets() if not part.kept}
    return Ruleset(tuple(_twin(part, names) for part in ruleset.parts if not isinstance(part, Flowtable)))


def _twin(part: Part, names: set[str]) -> Part:
    """The same part under another name. A base chain's twin has no hook, so it ends with the hook's policy."""
    if isinstance(part, Chain):
        end = (Rule(part.hook.policy),) if part.hook is not None else ()
        return Chain(PREFIX + part.name, (*_renamed(part.rules, names), *end))
    if isinstance(part, Set) and not part.kept:
        return replace(part, name=PREFIX + part.name, note="")
    return part


def _renamed(rules: Iterable[Rule], names: set[str]) -> Iterable[Rule]:
    def other(match: re.Match[str]) -> str:
        return f"{match[1]}{PREFIX if match[2] in names else ''}{match[2]}"

    for rule in rules:
        if _FLOW_TABLE in rule.statement:  # an interface is in one flow table at most: for now all packets go this way
            continue
        pieces = _QUOTED.split(rule.statement)
        pieces[::2] = [_NAMED.sub(other, piece) for piece in pieces[::2]]
        yield Rule("".join(pieces))
