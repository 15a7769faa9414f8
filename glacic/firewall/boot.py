"""Road 1, before there is a service: the script that nft loads at boot, before the network comes up.

The same chains with a counted drop in place of each hook, and what was learned, as far as it fits: a machine that has
started so far is closed for everything new, and open for what it knows. The service puts in the hooks and the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from glacic.config.model import Config
from glacic.config.policies import LearningPolicy, label
from glacic.firewall import offload
from glacic.firewall.compile import compile_config
from glacic.firewall.learned import ALLOWED, REFUSED
from glacic.firewall.panic import compile_panic
from glacic.firewall.render import render
from glacic.firewall.ruleset import Part, Ruleset, Set
from glacic.firewall.shapes import Key, Shape, element_text, set_name, shape_of, shapes_of

MOST_ELEMENTS = 50_000  # nft takes 0.3 s and 80 MB for them, and a boot waits for it


def boot_script(
    config: Config, policies: Iterable[LearningPolicy], flows: Iterable[tuple[Key, str]], *, panic: bool = False
) -> str:
    """The script for the next boot.

    policies: as the running ruleset numbers them. flows: (key, state) of the flows to be enforced, the most wanted
    first; those of other policies are left out.
    """
    chosen = tuple(policies)
    known = _possible(chosen)
    shapes: dict[str, set[Shape]] = {}
    elements: dict[str, list[str]] = {}
    room = MOST_ELEMENTS
    for key, state in flows:
        if room == 0:
            break
        shape = shape_of(key)
        if shape in known.get(key[0], ()) and (state == ALLOWED or state in REFUSED):
            shapes.setdefault(key[0], set()).add(shape)
            elements.setdefault(set_name(key[0], shape, state == ALLOWED), []).append(element_text(key))
            room -= 1
    if panic:
        ruleset = compile_panic(config, chosen, shapes)
    else:
        running = {label(policy.name, policy.identity): policy.number for policy in chosen}
        # At boot there may be none of the interfaces yet that a flow table must have.
        ruleset = offload.without(compile_config(config, running=running, shapes=shapes, closed=True))
    return render(Ruleset(tuple(_filled(part, elements) for part in ruleset.parts)))


def _possible(policies: Iterable[LearningPolicy]) -> Mapping[str, set[Shape]]:
    found: dict[str, set[Shape]] = {}
    for policy in policies:
        found.setdefault(policy.name, set()).update(shapes_of(policy))
    return found


def _filled(part: Part, elements: Mapping[str, list[str]]) -> Part:
    if isinstance(part, Set) and part.name in elements:
        return replace(part, elements=tuple(elements[part.name]))
    return part
