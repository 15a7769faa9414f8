"""`python -m bench.standin run …` is `glacic run …` on a kernel without the nft `queue` statement, with one change.

The script that the control process gives to the kernel has `accept` where the hook is, and what is accepted there with
the ASKED bit in its mark meets, later in the same netfilter hook, an xtables rule with the NFQUEUE target, which such
kernels have: same queue, same fail mode, same packet, same mark.

    priority   with the statement        here
    0          queue num 100 bypass      accept
    10         what the hook answered
    150                                  -m mark --mark ASKED/ASKED -j NFQUEUE --queue-num 100 --queue-bypass
    160                                  what the hook answered

The rest is the real thing: both processes, engine, store, writer, mapper, learned sets, control socket. What the
stand-in costs is one more walk through a table of one rule, for every packet; the figures have it in them.

Where the kernel has the statement nobody needs this (`needed`). Refuses an inline rate limit: it has a second queue,
and the mark does not say which of them was meant.
"""
# ruff: noqa: S603 -- iptables, found on PATH as an administrator's shell finds it

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from glacic.ctlplane import service
from glacic.ctlplane.cli import main as glacic
from glacic.ctlplane.probes import has_nft_queue
from glacic.errors import KernelRefused
from glacic.firewall import claims
from glacic.firewall.nft import Libnftables
from glacic.firewall.ruleset import Inventory

_HOOK = re.compile(r"^(\s*)queue num (\d+)(?:-(\d+))?((?: (?:bypass|fanout|,)*)?)$", re.MULTILINE)
_BEHIND = f"priority filter + {claims.BEHIND_HOOK};"
_STANDIN_PRIORITY = 150  # where iptables-nft puts the `security` table, the last of the filtering ones
_BEHIND_STANDIN = f"priority filter + {_STANDIN_PRIORITY + claims.BEHIND_HOOK};"


@functools.cache
def needed() -> bool:
    """Whether this kernel lacks the `queue` statement."""
    return not has_nft_queue()


def without_queue(script: str) -> tuple[str, str]:
    """(the script with `accept` for the hook, the xtables rules that are the hook instead, "" where it has none).

    Raises KernelRefused where the script has hooks into more than one queue.
    """
    hooks = {match.group(2, 3, 4) for match in _HOOK.finditer(script)}
    script = script.replace(_BEHIND, _BEHIND_STANDIN)
    if not hooks:
        return script, ""
    if len(hooks) > 1:
        raise KernelRefused("the stand-in for the queue statement knows one queue (or range); this ruleset has more")
    target = _target(*hooks.pop())
    rules = [f"-A {chain} {target}" for chain in ("INPUT", "FORWARD", "OUTPUT")]
    return _HOOK.sub(r"\1accept", script), "\n".join(["*security", *rules, "COMMIT", ""])


def _target(first: str, last: str | None, flags: str) -> str:
    mark = f"-m mark --mark {claims.ASKED:#x}/{claims.ASKED:#x} -j NFQUEUE"
    numbers = f"--queue-balance {first}:{last}" if last else f"--queue-num {first}"
    bypass = " --queue-bypass" if "bypass" in flags else ""
    fanout = " --queue-cpu-fanout" if "fanout" in flags else ""
    return f"{mark} {numbers}{bypass}{fanout}"


class StandinNftables(Libnftables):
    """libnftables for a control process on such a kernel: the one place where it differs."""

    def __init__(self) -> None:
        super().__init__()
        self._hook = ""

    def inventory(self) -> Inventory | None:
        """See Nft.inventory: as if the chains behind the hook were where the ruleset says."""
        present = super().inventory()
        if present is None:
            return None
        there, here = claims.BEHIND_HOOK, _STANDIN_PRIORITY + claims.BEHIND_HOOK
        hooks = {
            name: (place[0], place[1], there) if place is not None and place[2] == here else place
            for name, place in present.hooks.items()
        }
        return replace(present, hooks=hooks)

    def check(self, script: str) -> None:
        """See Nft.check."""
        super().check(without_queue(script)[0])

    def run(self, script: str) -> None:
        """See Nft.run. The new hook is there before the ruleset that sends packets to it."""
        replaced, hook = without_queue(script)
        if hook and hook != self._hook:
            for command in ("iptables-nft-restore", "ip6tables-nft-restore"):
                done = subprocess.run([command], input=hook, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise KernelRefused(f"{command}: {done.stderr.strip()}")
            self._hook = hook
        super().run(replaced)


def main(words: Sequence[str]) -> int:
    """The command line of `glacic`, over the stand-in."""
    setattr(service, "Libnftables", StandinNftables)  # noqa: B010 - mypy holds that it is not ours to replace; it is
    return glacic(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
