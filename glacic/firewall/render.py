"""Road 1: a Ruleset becomes the nft script, as a person would write it: commented, deterministic, one hook to a line.

    render           the whole table, for `glacic show` and for a kernel that has none: the table is replaced
    render_live      for a kernel that has the table: the same end, but what was learned stays, with its counters
    render_elements  for a kernel that has it, where only elements of named sets have changed: no rule is touched, so
                     rules keep their handles and counters, and a list of addresses can be renewed every few minutes

Each is one transaction; staging.py goes the road of several, on which no packet is lost. Refuses to change anything in
what it is given: a rule's text is compile.py's.
"""

from __future__ import annotations

from dataclasses import replace

from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.match import MAX_WIDTH, filled, indented
from glacic.firewall.quoting import quote
from glacic.firewall.ruleset import Chain, Counter, Flowtable, Inventory, Part, Ruleset, Set
from glacic.firewall.shapes import LEARNED

_OURS = f"{FAMILY} {TABLE}"
MOST_SEARCHED = 1_000_000  # nft looks through the set for each range that goes: 0.4 s for so many looks (nft 1.0.6)
_HEADER = f"""\
#!/usr/sbin/nft -f
#
# The firewall, as Glacic compiled it from its configuration. Loading this replaces the table `{_OURS}` in one
# step and leaves every other table alone. What was learned is not written here: the service keeps it in sets of
# its own, with a lookup for each in the chains learned_*.
"""


def render(ruleset: Ruleset) -> str:
    """The script that makes the table anew, whatever was there."""
    # A table can only be deleted where there is one, so it is added first: that is no error where it exists.
    replace = f"table {_OURS}\ndelete table {_OURS}\n"
    return f"{_HEADER}\n{replace}\n{_table(ruleset)}"


def render_live(ruleset: Ruleset, present: Inventory) -> str:
    """The script that turns the table `present` into this one.

    Rules are flushed, so that nothing refers to anything; then what is stale goes, with every chain that somebody has
    hung elsewhere, and every set whose contents are the ruleset's own; then everything is declared. Learned sets that
    stay are declared as they are, which changes nothing.
    """
    lines = [f"table {_OURS}", f"flush table {_OURS}", *stale(ruleset, present)]
    return "\n".join(lines) + f"\n\n{_table(ruleset)}"


def stale(ruleset: Ruleset, present: Inventory) -> list[str]:
    """The lines that remove what the ruleset has not, or has with contents of its own. Nothing may refer to it."""
    kept = {part.name for part in ruleset.sets() if part.kept}
    chains = {part.name for part in ruleset.chains()}
    lines = [f"delete chain {_OURS} {name}" for name in sorted(present.chains - chains | moved(ruleset, present))]
    lines += [f"delete set {_OURS} {name}" for name in sorted(present.sets - kept)]
    counters = {part.name for part in ruleset.counters()}
    lines += [f"delete flowtable {_OURS} {name}" for name in sorted(present.flowtables)]  # its devices may be others
    lines += [f"delete counter {_OURS} {name}" for name in sorted(present.counters - counters)]
    return lines


def moved(ruleset: Ruleset, present: Inventory) -> set[str]:
    """The chains that hang elsewhere than the ruleset says."""
    hung = {part.name: part.hook.place if part.hook else None for part in ruleset.chains()}
    return {name for name, place in present.hooks.items() if name in hung and hung[name] != place}


def render_parts(parts: tuple[Part, ...]) -> str:
    """The declaration of the table with these parts."""
    return _table(Ruleset(parts))


def render_elements(before: Ruleset, after: Ruleset) -> str:
    """The script that turns the table of `before` into that of `after`, where they differ in the elements of some named
    sets alone; "" where they differ in more, or in nothing, or in so much that a new ruleset is quicker.

    Learned sets and their lookups come and go while a ruleset is in force, so they are no difference, unless `after`
    lacks one. What stays is not touched: a set of ranges that is flushed and filled again in one transaction is empty
    for a moment (staging.py). A set is filled in one command: in pieces of 5,000 it takes a tenth longer and as much
    memory (measured).
    """
    if [_frame(part) for part in before.parts if not _kept(part)] != [
        _frame(part) for part in after.parts if not _kept(part)
    ]:
        return ""
    elements = {part.name: part.elements for part in before.sets()}
    if any(part.kept and part.name not in {other.name for other in after.sets()} for part in before.sets()):
        return ""
    lines: list[str] = []
    for part in after.sets():
        if not part.kept:
            old, new = set(elements[part.name]), set(part.elements)
            gone = [element for element in elements[part.name] if element not in new]
            if len(gone) * len(old) > MOST_SEARCHED:
                return ""
            lines += _elements("delete", part.name, gone)
            lines += _elements("add", part.name, [element for element in part.elements if element not in old])
    return "\n".join(lines) + "\n" if lines else ""


def _elements(verb: str, name: str, elements: list[str]) -> list[str]:
    return [f"{verb} element {_OURS} {name} {{\n{indented(filled(elements))}\n}}"] if elements else []


def _kept(part: Part) -> bool:
    return isinstance(part, Set) and part.kept


def _frame(part: Part) -> Part:
    """What no change of elements, and nothing that is learned, changes in it."""
    if isinstance(part, Set):
        return replace(part, elements=())
    return replace(part, rules=()) if isinstance(part, Chain) and part.name.startswith(LEARNED) else part


def _table(ruleset: Ruleset) -> str:
    blocks: list[str] = []
    before: Part | None = None
    for part in ruleset.parts:
        text = indented(_remarks(part.note) + _part(part))
        together = isinstance(part, Set) and isinstance(before, Set) and not part.note
        blocks.append(text if before is None or together else f"\n{text}")
        before = part
    return f"table {_OURS} {{\n" + "\n".join(blocks) + "\n}\n"


def _part(part: Part) -> str:
    match part:
        case Counter():
            return f"counter {part.name} {{ }}"
        case Set():
            return _set(part)
        case Flowtable():
            # A wildcard has no meaning to the kernel: apply.py knows which devices there are.
            names = ", ".join(quote(name) for name in part.devices if not name.endswith("*"))
            devices = f"\n\tdevices = {{ {names} }};" if names else ""
            return f"flowtable {part.name} {{\n\thook ingress priority filter;{devices}\n}}"
        case Chain():
            return _chain(part)


def _set(part: Set) -> str:
    one_line = f"set {part.name} {{ {part.spec} }}"
    if not part.elements and len(one_line) <= MAX_WIDTH * 2:
        return one_line
    elements = ", ".join(part.elements)
    if len(elements) <= MAX_WIDTH:
        return f"set {part.name} {{\n\t{part.spec}\n\telements = {{ {elements} }}\n}}"
    return f"set {part.name} {{\n\t{part.spec}\n\telements = {{\n{indented(indented(filled(part.elements)))}\n\t}}\n}}"


def _chain(chain: Chain) -> str:
    lines = [str(chain.hook)] if chain.hook else []
    for rule in chain.rules:
        if lines and (rule.note or rule.apart or rule is chain.rules[0]):
            lines.append("")
        lines.append(_remarks(rule.note) + rule.statement)
    body = indented("\n".join(lines))
    return f"chain {chain.name} {{\n{body}\n}}" if body else f"chain {chain.name} {{\n}}"


def _remarks(note: str) -> str:
    return "".join(f"# {line}\n" for line in note.splitlines())
