"""The stand-in for nftables' `queue`: what it writes, and, with the whole service and real packets, that it is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import standin
from bench.service import CLIENT_MAC, SERVER, BenchGlacic, Road, config, road
from glacic.config.load import load
from glacic.errors import KernelRefused
from glacic.firewall.compile import compile_config
from glacic.firewall.render import render
from glacic.lab import traffic
from glacic.lab.net import Host, Network

HOOK = "-m mark --mark 0x800000/0x800000 -j NFQUEUE"


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("queue num 100 bypass", "--queue-num 100 --queue-bypass"),
        ("queue num 100", "--queue-num 100"),
        ("queue num 100-103 bypass,fanout", "--queue-balance 100:103 --queue-bypass --queue-cpu-fanout"),
        ("queue num 100-103 fanout", "--queue-balance 100:103 --queue-cpu-fanout"),
    ],
)
def test_a_hook_becomes_accept_and_a_rule_behind_it(statement: str, target: str) -> None:
    script, rules = standin.without_queue(f"\t\tmeta mark set 1\n\t\t{statement}\n")
    assert script == "\t\tmeta mark set 1\n\t\taccept\n"
    assert rules.splitlines() == [
        "*security",
        *(f"-A {chain} {HOOK} {target}" for chain in ("INPUT", "FORWARD", "OUTPUT")),
        "COMMIT",
    ]


def test_what_has_no_hook_stays_as_it_is() -> None:
    script = 'add element inet glacic s { 1 }\n\t\tlog group 0 prefix "queue num 1: " drop\n'
    assert standin.without_queue(script) == (script, "")


def test_two_queues_are_refused() -> None:
    with pytest.raises(KernelRefused, match="one queue"):
        standin.without_queue("\t\tqueue num 100 bypass\n\t\tqueue num 101 bypass\n")


@pytest.mark.parametrize(("lacks", "module"), [(True, "bench.standin"), (False, "glacic")])
def test_it_steps_aside_where_the_kernel_has_the_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool, module: str
) -> None:
    monkeypatch.setattr(standin, "needed", lambda: lacks)
    glacic = BenchGlacic(Host("router", "none"), tmp_path, config())
    assert glacic.command("run")[3:6] == ["-P", "-m", module]
    assert glacic.command("stats")[3:6] == ["-P", "-m", "glacic"]


def test_the_chains_behind_the_hook_come_after_it(tmp_path: Path) -> None:
    file = tmp_path / "glacic.hcl"
    file.write_text(config())
    script, rules = standin.without_queue(render(compile_config(load(file))))
    assert "queue num" not in script
    assert script.count("priority filter + 160;") == 2
    assert "priority filter + 10;" not in script
    assert rules


def learned(glacic: BenchGlacic, port: int) -> str | None:
    flows = glacic.flows(source=CLIENT_MAC, port=port)
    return flows[0]["state"] if flows else None


def served(bed: Road, glacic: BenchGlacic) -> None:
    first = bed.client.call(traffic.tcp, SERVER, 8001)
    assert (first.ok, first.retransmits) == (True, 0), "the first SYN is kept"
    assert learned(glacic, 8001) == "allowed"
    before = glacic.queue()["processed"]
    many = bed.client.call(traffic.tcp, SERVER, 8001, count=50)
    assert (many.ok, many.retransmits) == (True, 0)
    assert glacic.queue()["processed"] == before, "a learned flow never meets the queue"
    denied = glacic.call("flows.set", verb="deny", filters={"port": 8001})
    assert denied["changed"] == 1
    assert not bed.client.call(traffic.tcp, SERVER, 8001, timeout_s=0.5).ok
    assert glacic.queue()["processed"] == before
    glacic.call("learn.off")
    assert not bed.client.call(traffic.tcp, SERVER, 8002, timeout_s=0.5).ok
    assert learned(glacic, 8002) == "pending"


def test_the_service_over_it_learns_keeps_the_first_packet_and_denies(tmp_path: Path) -> None:
    with Network() as network:
        bed = road(network)
        bed.answers()
        with bed.server.call(traffic.Echo, [8001, 8002], []):
            glacic = BenchGlacic(bed.router, tmp_path, config())
            with glacic:
                served(bed, glacic)
                assert glacic.ready_s > 0
            first = bed.client.call(traffic.tcp, SERVER, 8003, timeout_s=0.5)
            assert first.error == "refused", "nobody listens: bypass lets it through to a server that has no such port"
