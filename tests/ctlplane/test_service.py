"""The service in nflog mode, on this very kernel: start, learn, reload, refuse, stop, and everything people ask it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from glacic.config.load import load
from glacic.config.policies import learning_policies
from glacic.ctlplane.child import Worker
from glacic.ctlplane.service import Service
from glacic.errors import GlacicError
from glacic.firewall.nft import FakeNft
from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, LAPTOP_MAC, ROUTER_WAN, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 20.0
SHORT_S = 0.7

CONFIG = """\
rule_learning {
  enabled       = true
  learning_mode = true
}
zone "lan" {
  interface = "lan0"
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  name = "lan_wan"
}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8020), range(8000, 8020)):
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("nflog"), CONFIG) as running:
        yield running


@pytest.fixture
def glacic(service: Glacic) -> Glacic:
    service.call("learn.on")
    return service


def learned(glacic: Glacic, port: int) -> bool:
    return bool(glacic.flows(port=port, state="allowed"))


@pytest.mark.parametrize(("server", "port"), [(SERVER, 8001), (SERVER_6, 8002)], ids=["IPv4", "IPv6"])
def test_the_first_syn_is_lost_and_the_next_one_passes(lab: Home, glacic: Glacic, server: str, port: int) -> None:
    result = lab.laptop.call(traffic.tcp, server, port, timeout_s=PATIENT_S)
    assert result.ok
    assert result.retransmits >= 1
    (flow,) = glacic.flows(port=port)
    assert (flow["policy"], flow["source"], flow["protocol"]) == ("lan_wan", LAPTOP_MAC, "tcp")
    assert (flow["destination"], flow["state"], flow["origin"]) == (None, "allowed", "tofu")
    again = lab.laptop.call(traffic.tcp, server, port, count=20, timeout_s=PATIENT_S)
    assert (again.ok, again.retransmits) == (True, 0)
    assert glacic.flows(port=port)[0]["packets"] >= 21


def test_a_person_decides_what_waits(lab: Home, glacic: Glacic) -> None:
    glacic.call("learn.off")
    assert not lab.camera.call(traffic.tcp, SERVER, 8003, timeout_s=SHORT_S).ok
    flow = glacic.wait("listing the flow", lambda: glacic.flows(source=CAMERA_MAC, port=8003))[0]
    assert flow["state"] == "pending"
    glacic.cli("flows", "approve", str(flow["id"]))
    with lab.camera.call(traffic.connect, SERVER, 8003, timeout_s=PATIENT_S) as connection:
        assert traffic.total_retransmits(connection) == 0
        assert traffic.answers(connection)
        assert glacic.json("flows", "deny", flow["key"])["connections_ended"] == 1
        connection.settimeout(SHORT_S)
        assert not traffic.answers(connection)
    history = glacic.json("flows", "show", flow["key"])["history"]
    changes = [(row["from"], row["to"]) for row in history]
    assert changes == [(None, "pending"), ("pending", "allowed"), ("allowed", "denied")]


def test_who_decided_what_is_on_the_audit_trail(lab: Home, glacic: Glacic) -> None:
    glacic.call("learn.off")
    assert not lab.camera.call(traffic.tcp, SERVER, 8018, timeout_s=SHORT_S).ok
    (flow,) = glacic.wait("listing the flow", lambda: glacic.flows(source=CAMERA_MAC, port=8018))
    glacic.cli("flows", "deny", str(flow["id"]))
    glacic.cli("flows", "approve", "999999", check=False)
    found = glacic.json("audit", "--verify")
    assert found["intact"] is True
    *_, off, deny, refused = found["entries"]
    assert (off["action"], deny["action"], deny["who"], deny["outcome"]) == (
        "learn.off",
        "flows.set",
        "user root",
        "ok",
    )
    assert (deny["args"]["verb"], deny["args"]["flows"], deny["args"]["flows_in_all"]) == ("deny", [flow["key"]], 1)
    assert "no such flow: 999999" in refused["outcome"]


def test_reloads_are_on_the_audit_trail_whoever_asked_for_them(glacic: Glacic) -> None:
    glacic.call("reload")
    assert glacic.process is not None
    glacic.process.send_signal(signal.SIGHUP)

    def last() -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], glacic.call("audit", limit=2)["entries"])

    glacic.wait("telling of SIGHUP", lambda: last()[-1]["who"] == "SIGHUP")
    by_hand, by_signal = last()
    assert (by_hand["action"], by_hand["who"], by_hand["outcome"]) == ("reload", "user root", "ok")
    assert by_hand["args"]["revision"] >= 1
    assert (by_signal["action"], by_signal["outcome"]) == ("reload", "ok")
    (start, *_) = glacic.call("audit", who="service")["entries"]
    assert (start["action"], start["outcome"]) == ("start", "ok")


def test_an_unknown_flow_is_a_no(glacic: Glacic) -> None:
    for name in ("999999", "lan_wan/02:00:00:00:00:77/tcp/1"):
        refused = glacic.cli("flows", "approve", name, check=False)
        assert (refused.returncode, name in refused.stderr) == (1, True)


def test_flows_are_listed_in_pages(lab: Home, glacic: Glacic) -> None:
    for port in (8004, 8005, 8006):
        assert lab.laptop.call(traffic.udp, SERVER, port, timeout_s=SHORT_S).ok is False  # the first one is lost
        glacic.wait("learned", lambda port=port: learned(glacic, port))
    everything = glacic.json("flows", "list")
    first = glacic.json("flows", "list", "--limit", "2")
    rest = glacic.json("flows", "list", "--after", str(first[-1]["id"]))
    assert [flow["key"] for flow in first + rest] == [flow["key"] for flow in everything]
    assert len(first) == 2
    assert all(flow["protocol"] == "udp" for flow in glacic.json("flows", "list", "--protocol", "udp"))


def test_learning_is_switched_for_one_policy_and_for_a_while(glacic: Glacic) -> None:
    result = glacic.json("learn", "off", "lan_wan")
    assert {row["policy"]: row["on"] for row in result["policies"]} == {
        "DROP_INPUT": True,
        "DROP_FORWARD": True,
        "lan_wan": False,
    }
    assert glacic.json("learn", "on", "lan_wan", "--for", "24h")["policies"][-1]["until"] is not None
    refused = glacic.cli("learn", "on", "no_such_policy", check=False)
    assert (refused.returncode, "lan_wan" in refused.stderr) == (1, True)
    assert glacic.cli("learn", "on", "--for", "soon", check=False).returncode == 2


def test_a_broken_file_is_refused_and_everything_goes_on(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CONFIG + 'zone "lan" {}\n')
    refused = glacic.cli("reload", check=False)
    assert refused.returncode == 1
    assert f"{glacic.config}:" in refused.stderr
    glacic.configure(CONFIG)
    assert glacic.state() == "running"
    assert lab.laptop.call(traffic.tcp, SERVER, 8007, timeout_s=PATIENT_S).ok


def test_what_was_learned_comes_back_when_somebody_loads_the_table_anew(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8012, timeout_s=PATIENT_S).ok
    before = glacic.flows(port=8012)
    lab.router.run(["nft", "-f", "-"], text=glacic.cli("show").stdout)

    def is_back() -> bool:
        return "02:00:00:00:00:10 . tcp . 8012" in lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout

    glacic.wait("enforcing what was learned", is_back)
    again = lab.laptop.call(traffic.tcp, SERVER, 8012, timeout_s=PATIENT_S)
    assert (again.ok, again.retransmits) == (True, 0)
    assert glacic.flows(port=8012)[0]["packets"] > before[0]["packets"]


def test_sighup_reloads(lab: Home, glacic: Glacic) -> None:
    def open_from_outside() -> bool:
        return lab.server.call(traffic.tcp, ROUTER_WAN, 80, timeout_s=SHORT_S).ok

    with lab.router.call(traffic.Echo, [80]):
        assert not open_from_outside()
        glacic.configure(CONFIG.replace('"wan0"', '"wan0"\n  management {\n    web = true\n  }'))
        assert glacic.process is not None
        os.kill(glacic.process.pid, signal.SIGHUP)
        glacic.wait("reloaded", open_from_outside)
        glacic.reload(CONFIG)
        assert not open_from_outside()


def test_a_second_service_is_refused(glacic: Glacic) -> None:
    second = glacic.cli("run", check=False)
    assert second.returncode == 1
    assert "already running" in second.stderr or "another service" in second.stderr
    assert glacic.state() == "running"


def test_the_log_has_one_line_of_json_per_new_flow(lab: Home, glacic: Glacic) -> None:
    lab.laptop.call(traffic.udp, SERVER, 8008, timeout_s=SHORT_S)
    glacic.wait("learned", lambda: learned(glacic, 8008))

    def lines() -> list[dict[str, object]]:
        rows = [json.loads(line) for line in glacic.log.read_text().splitlines()]
        return [row for row in rows if row.get("port") == 8008]

    (line,) = glacic.wait("logging", lines)
    assert (line["event"], line["source"], line["why"]) == ("flow allowed", LAPTOP_MAC, "learned on first use")


def test_the_stats_have_every_figure(lab: Home, glacic: Glacic) -> None:
    lab.laptop.call(traffic.udp, SERVER, 8009, timeout_s=SHORT_S)
    glacic.wait("learned", lambda: learned(glacic, 8009))
    stats = glacic.json("stats")
    assert stats["queues"] == []
    (group,) = stats["log_groups"]
    assert (group["num"], group["lost"]) == (0, 0)
    assert group["received"] > 0
    assert set(stats["flows"]) == {"pending", "allowed", "denied", "ignored"}
    assert set(stats["cache"]) >= {"size", "capacity", "hits", "misses"}
    assert stats["latency_us"]["max"] >= stats["latency_us"]["p99"] >= stats["latency_us"]["p50"] > 0


@pytest.mark.parametrize("command", [["status"], ["stats"], ["flows", "list"], ["learn", "status"]])
def test_every_answer_is_also_for_people(glacic: Glacic, command: list[str]) -> None:
    assert glacic.cli(*command).stdout.strip()


def test_a_stop_leaves_the_ruleset_and_a_new_start_misses_nothing(lab: Home, tmp_path: Path) -> None:
    with home() as other, other.server.call(traffic.Echo, [8010, 8011]):
        glacic = Glacic(other.router, tmp_path, CONFIG)
        with glacic:
            assert other.laptop.call(traffic.tcp, SERVER, 8010, timeout_s=PATIENT_S).ok
            glacic.call("learn.off")
        assert other.laptop.call(traffic.tcp, SERVER, 8010, timeout_s=PATIENT_S).ok  # the kernel knows it
        assert not other.laptop.call(traffic.tcp, SERVER, 8011, timeout_s=SHORT_S).ok
        assert glacic.cli("status", check=False).returncode == 3
        with glacic:
            again = other.laptop.call(traffic.tcp, SERVER, 8010, timeout_s=PATIENT_S)
            assert (again.ok, again.retransmits) == (True, 0)
            assert glacic.call("learn.status")["on"] is False
        glacic.cli("unload")
        assert other.router.run(["nft", "list", "tables"]).stdout == ""
        assert other.laptop.call(traffic.tcp, SERVER, 8011, timeout_s=PATIENT_S).ok


def test_a_stop_lets_a_reload_that_is_under_way_come_to_its_end(tmp_path: Path) -> None:
    with home() as other, other.server.call(traffic.Echo, [8016]):
        with Glacic(other.router, tmp_path, CONFIG) as glacic:
            assert other.laptop.call(traffic.tcp, SERVER, 8016, timeout_s=PATIENT_S).ok
            assert glacic.process is not None
            reload = other.router.popen(glacic.command("reload"))
            os.kill(glacic.process.pid, signal.SIGTERM)
            assert glacic.process.wait(PATIENT_S) == 0
            assert other.router.end(reload) in {0, 3, -signal.SIGTERM}  # it came to its end, or came too late
        again = other.laptop.call(traffic.tcp, SERVER, 8016, timeout_s=PATIENT_S)
        assert (again.ok, again.retransmits) == (True, 0)


def test_a_log_group_of_another_program_is_said_and_nothing_is_applied(tmp_path: Path) -> None:
    with home() as other:
        code = (
            "import socket, struct, sys, time\n"
            "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)\n"
            "s.bind((0, 0))\n"
            "s.send(struct.pack('=LHHLLBBHHHBxxx', 28, 0x401, 5, 1, 0, 0, 0, 0, 5, 1, 1))\n"
            "print(s.recv(4096)[16:20].hex(), flush=True)\n"
            "time.sleep(600)\n"
        )
        rival = other.router.popen(["python3", "-c", code], stdout=-1)
        assert rival.stdout is not None
        assert rival.stdout.readline() == b"00000000\n"
        refused = Glacic(other.router, tmp_path, CONFIG).cli("run", check=False)
        assert refused.returncode == 4
        assert "log group 0" in refused.stderr
        assert other.router.run(["nft", "list", "ruleset"]).stdout == ""


def test_the_database_cannot_change_under_a_running_service(glacic: Glacic, tmp_path: Path) -> None:
    with pytest.raises(GlacicError, match="database"):
        glacic.reload(CONFIG.replace("enabled", f'database = "{tmp_path}/other.db"\n  enabled'))
    glacic.reload(CONFIG)


def test_a_table_that_somebody_removed_is_said_and_a_reload_brings_everything_back(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8013, timeout_s=PATIENT_S).ok
    for _ in range(2):  # the second time nothing has changed since a reload
        lab.router.run(["nft", "flush", "ruleset"])
        status = glacic.cli("status", check=False)
        assert (status.returncode, "degraded" in status.stdout) == (1, True)
        glacic.cli("reload")
        assert glacic.cli("status").returncode == 0
        again = lab.laptop.call(traffic.tcp, SERVER, 8013, timeout_s=PATIENT_S)
        assert (again.ok, again.retransmits) == (True, 0)


def test_a_second_service_elsewhere_leaves_what_the_first_has_learned(
    lab: Home, glacic: Glacic, tmp_path: Path
) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8014, timeout_s=PATIENT_S).ok
    refused = Glacic(lab.router, tmp_path, CONFIG).cli("run", check=False)
    assert (refused.returncode, "log group 0" in refused.stderr) == (4, True)
    again = lab.laptop.call(traffic.tcp, SERVER, 8014, timeout_s=PATIENT_S)
    assert (again.ok, again.retransmits) == (True, 0)


@pytest.mark.parametrize("applies", [True, False])
def test_a_table_that_somebody_else_loads_is_numbered_as_show_numbers_it(tmp_path: Path, applies: bool) -> None:
    """`show` knows nothing of what runs; a ruleset of our own keeps its numbers, for the packets on their way."""
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    service = Service(load(path), tmp_path, tmp_path / "glacic.sock", FakeNft(), applies)
    service.settings = service._settings(service.config)
    before = {policy.name: policy.number for policy in service.settings.policies}
    path.write_text(
        CONFIG.replace('policy "lan"', 'policy "iot" "wan" {}\nzone "iot" { interface = "iot0" }\npolicy "lan"')
    )
    after = {policy.name: policy.number for policy in service._settings(load(path)).policies}
    shown = {policy.name: policy.number for policy in learning_policies(load(path))}
    assert shown["lan_wan"] != before["lan_wan"]
    assert after["lan_wan"] == (before if applies else shown)["lan_wan"]


class Refusing:
    """A worker that refuses one request, and answers the others with nothing."""

    def __init__(self, refuses: str) -> None:
        self.refuses = refuses
        self.asked: list[str] = []
        self.killed = False

    async def call(self, do: str, **_: Any) -> Any:
        self.asked.append(do)
        if do == self.refuses:
            raise GlacicError(f"cannot {do}")
        return {}

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(
    ("refuses", "kernel", "asked", "said"),
    [
        ("prepare", (), ["prepare", "abort"], "cannot prepare"),
        ("", ("chain",), ["prepare", "abort"], "refused"),
        ("abort", ("chain",), ["prepare", "abort"], "refused"),
        ("commit", (), ["prepare", "commit"], "cannot commit"),
    ],
)
def test_a_worker_that_is_left_between_two_rulesets_is_ended(
    tmp_path: Path, refuses: str, kernel: tuple[str, ...], asked: list[str], said: str
) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    service = Service(load(path), tmp_path, tmp_path / "glacic.sock", FakeNft(refuses=kernel), True)
    before, worker = service.config, Refusing(refuses)
    service.state, service.worker = "running", cast(Worker, worker)
    service.sound.set()
    with pytest.raises(GlacicError, match=said):
        asyncio.run(service.put_in_force(service.config))
    assert (worker.asked, worker.killed) == (asked, refuses in ("abort", "commit"))
    assert service.config is before
