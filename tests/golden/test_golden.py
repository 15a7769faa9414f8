"""Golden folders: a configuration, and what has to come of it, to the letter.

    NN-topic/conf.hcl, script.nft     the script; a kernel accepts it, and puts it in force twice over
    eNN-topic/conf.hcl, errors.txt    the errors, as `glacic check` prints them

With GLACIC_WRITE_GOLDEN=1 in the environment the expected files are written instead of compared: read the diff.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.errors import ConfigError, KernelRefused
from glacic.firewall import offload
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.firewall.render import render
from glacic.firewall.ruleset import Ruleset
from glacic.lab.net import Network

NOW = datetime(2026, 3, 25, 12, tzinfo=UTC)  # the week in which Europe puts its clocks forward
HERE = Path(__file__).parent
WRITE = os.environ.get("GLACIC_WRITE_GOLDEN") == "1"
SCRIPTS = sorted(path.parent.name for path in HERE.glob("[0-9]*/conf.hcl"))
CONFIGS = [
    *(HERE / topic / "conf.hcl" for topic in SCRIPTS),
    *sorted((HERE.parents[1] / "configs").glob("*.hcl")),  # the worked examples
]
ERRORS = sorted(path.parent.name for path in HERE.glob("e[0-9]*/conf.hcl"))

HOOK = re.compile(
    r"queue num \d+(-\d+)?( bypass| fanout| bypass,fanout)?"
    r'|(meta l4proto tcp )?log group \d+ prefix "[^"]*: " counter (drop|reject with (tcp reset|icmpx admin-prohibited))'
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Libnftables]:
    """The nf_tables of a network namespace of its own."""
    with Network() as net:
        yield net.host("golden").call(Libnftables)


@pytest.fixture(scope="module")
def has_queue(kernel: Libnftables) -> bool:
    """Whether this kernel has the `queue` statement. Where it lacks it, the hook lines alone stay unchecked by it."""
    try:
        kernel.run("table inet probe {\n\tchain probe {\n\t\tqueue num 0\n\t}\n}\ndelete table inet probe\n")
    except KernelRefused:
        return False
    return True


def expect(path: Path, text: str) -> None:
    if WRITE:
        path.write_text(text)
    assert text == path.read_text()


def without_what_this_kernel_lacks(kernel: Libnftables, ruleset: Ruleset, has_queue: bool) -> tuple[Ruleset, str]:
    """The ruleset and its script, with the interfaces that there are. Without `queue`, and flow tables, if need be."""
    found = offload.without(ruleset) if offload.lacks(kernel) else offload.on(ruleset, kernel.interfaces())
    script = render(found)
    if not has_queue:
        script = re.sub(r"^\t+queue num .*", "\t\tcounter drop", script, flags=re.MULTILINE)
    return found, script


@pytest.mark.parametrize("topic", SCRIPTS)
def test_the_script_is_this_one(topic: str) -> None:
    expect(HERE / topic / "script.nft", render(compile_config(load(HERE / topic / "conf.hcl"), now=NOW)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kernel_takes_the_script_and_takes_it_again(path: Path, kernel: Libnftables, has_queue: bool) -> None:
    compiled = compile_config(load(path), now=NOW)
    ruleset, script = without_what_this_kernel_lacks(kernel, compiled, has_queue)
    kernel.run(script)
    kernel.run(script)
    inventory = kernel.inventory()
    assert inventory is not None
    assert inventory.chains == {chain.name for chain in ruleset.chains()}
    assert inventory.sets == {set_.name for set_ in ruleset.sets()}
    assert inventory.counters == {counter.name for counter in ruleset.counters()}
    if has_queue:
        apply(kernel, ruleset)
        assert kernel.inventory() == inventory


@pytest.mark.parametrize("topic", SCRIPTS)
def test_a_hook_is_alone_on_its_line(topic: str) -> None:
    for line in (HERE / topic / "script.nft").read_text().splitlines():
        words = re.sub(r'"[^"]*"', '""', line)  # names may say what they like
        if ("queue num" in words or "log group" in words) and not line.strip().startswith("#"):
            assert HOOK.fullmatch(line.strip()), line


@pytest.mark.parametrize("topic", ERRORS)
def test_the_errors_are_these(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE / topic)
    with pytest.raises(ConfigError) as refused:
        load(Path("conf.hcl"))
    expect(HERE / topic / "errors.txt", f"{refused.value}\n")
