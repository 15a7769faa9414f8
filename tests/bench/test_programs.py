"""The bench's C programs, with real packets: what is sent arrives, is numbered and timed, and the floor lets it pass.

client 10.0.0.1 ----eth0/lan0---- fw 10.0.0.2 ----wan0/eth0---- server 10.0.1.2
                                  queue 100
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import build, pinning, processes
from glacic.errors import LabError
from glacic.lab.net import Host, Network, Port

FW_MAC = "02:00:00:00:00:02"
ROOM = ("--maxlen", 4000, "--buffer", 32 << 20)  # for all that is sent, if the floor gets no core meanwhile
RULES = """
*filter
-A FORWARD -p udp -j NFQUEUE --queue-num 100
COMMIT
*mangle
-A POSTROUTING -p udp -m mark --mark {mark}
COMMIT
"""


class Line:
    def __init__(self, network: Network) -> None:
        self.client, self.server = network.host("client"), network.host("server")
        self.fw = network.host("fw", forwards=True)
        network.cable(Port(self.client, "eth0"), Port(self.fw, "lan0", FW_MAC, ("10.0.0.2/24",)))
        network.cable(Port(self.fw, "wan0", "", ("10.0.1.1/24",)), Port(self.server, "eth0", "", ("10.0.1.2/24",)))
        self.fw.ip(f"neighbour replace 10.0.1.2 lladdr {self.server.mac('eth0')} dev wan0")

    def send(self, *options: str | float, source: str = "10.0.0.1", destination: str = "10.0.1.2") -> dict[str, float]:
        addresses = ("--source", source, "--destination", destination)
        return processes.send(self.client, "eth0", FW_MAC, *addresses, *options, core=pinning.cores().sender)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Network() as network:
        yield Line(network)


def sink(host: Host, count: int, *options: str | float) -> AbstractContextManager[processes.Running]:
    return processes.running(host, processes.program("sink", *options, "--count", count, "--seconds", 10))


def errors(host: Host) -> int:
    """Datagrams and segments that this host found damaged."""
    counters = host.run(["nstat", "-asz", "UdpInCsumErrors", "TcpInCsumErrors", "IpInHdrErrors"]).stdout
    return sum(int(line.split()[1]) for line in counters.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("protocol", ["udp", "syn"])
def test_every_packet_arrives_once_in_order_and_undamaged(line: Line, protocol: str) -> None:
    pairs: list[str | float] = ["--ports", "2000-2009", "--source-macs", 10, "--source-ports", "3000-3004"]
    with sink(line.server, 5000, "--interface", "eth0") as running:
        sent = line.send("--protocol", protocol, "--count", 5000, "--sources", 3, *pairs, source="10.0.0.10")
        came = running.wait(15)
    assert sent["sent"] == 5000
    assert [came[name] for name in ("received", "lost", "twice", "disordered")] == [5000, 0, 0, 0]
    assert 0 < came["p50_us"] <= came["p99_us"] <= came["max_us"] < 1_000_000
    assert errors(line.server) == 0


def test_new_sends_each_pair_of_mac_and_port_once(line: Line) -> None:
    with sink(line.server, 60, "--interface", "eth0", "--ports", "2000-2019") as running:
        assert line.send("--new", "--ports", "2000-2019", "--source-macs", 3)["sent"] == 60
        assert running.wait(15)["received"] == 60


def test_a_rate_is_never_exceeded_and_what_was_late_is_made_up_for(line: Line) -> None:
    sent = line.send("--rate", 2000, "--count", 600)
    assert sent["sent"] == 600
    assert 0.299 < sent["seconds"] < 10
    sent = line.send("--rate", 2000, "--seconds", 0.3)
    assert 0 < sent["sent"] <= 601


def test_sockets_take_what_comes_to_their_ports(line: Line) -> None:
    with sink(line.fw, 40, "--udp", "2000-2003") as running:
        line.send("--count", 40, "--ports", "2000-2003", destination="10.0.0.2")
        came = running.wait(15)
    assert (came["received"], came["lost"]) == (40, 0)


@pytest.mark.parametrize("way", [(), ("--batch",), ("--mark", 4660), ("--batch", "--mark", 4660)])
def test_the_floor_lets_every_packet_pass(line: Line, way: tuple[str | float, ...]) -> None:
    line.fw.run(["iptables-nft-restore"], text=RULES.format(mark=4660 if "--mark" in way else 0))
    try:
        with (
            processes.running(line.fw, processes.program("floor", 100, *ROOM, *way)) as floor,
            sink(line.server, 3000, "--interface", "eth0") as running,
        ):
            line.send("--count", 3000, "--rate", 30_000)
            came, said = running.wait(15), floor.end()
        listed = line.fw.run(["iptables-nft", "-t", "mangle", "-nvxL", "POSTROUTING"]).stdout
    finally:
        line.fw.run(["nft", "flush", "ruleset"])
    assert (came["received"], came["lost"]) == (3000, 0)
    assert said["verdicts"] == 3000
    assert int(listed.splitlines()[2].split()[0]) == 3000
    assert said["reads"] <= 3000
    assert said["cpu_s"] > 0


def test_a_queue_that_is_taken_is_an_error_in_words(line: Line) -> None:
    command = processes.program("floor", 101)
    busy = pytest.raises(LabError, match="bind: Operation not permitted")
    with processes.running(line.fw, command), busy, processes.running(line.fw, command):
        pass


@pytest.mark.parametrize(
    "arguments",
    [("eth0",), ("eth0", FW_MAC), ("eth0", "02:00", "--source", "10.0.0.1", "--destination", "10.0.0.2")],
)
def test_a_misuse_is_refused(line: Line, arguments: tuple[str, ...]) -> None:
    assert line.client.run([str(build.program("traffic")), *arguments], check=False).returncode == 2


def test_a_program_is_compiled_when_its_source_is_newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tmp_path / "c"
    sources.mkdir()
    source = sources / "answer.c"
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    source.write_text("int main(void) { return 0; }\n")
    built = build.program("answer")
    first = built.stat().st_mtime_ns
    assert build.program("answer").stat().st_mtime_ns == first
    source.write_text("int main(void) { return 1; }\n")
    later = first / 1e9 + 10
    os.utime(source, (later, later))
    assert build.program("answer").stat().st_mtime_ns != first


def test_what_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    (tmp_path / "broken.c").write_text("int main(void) { return x; }\n")
    with pytest.raises(LabError, match=r"(?s)broken\.c does not compile:\n.*undeclared"):
        build.program("broken")


def test_times_are_told_for_a_process_and_its_threads() -> None:
    before = pinning.precise_cpu_s(os.getpid())
    while pinning.precise_cpu_s(os.getpid()) < before + 0.01:
        pass
    assert pinning.cpu_time_s(os.getpid()) > 0


def test_a_thread_stays_where_it_is_told_and_comes_back() -> None:
    before, core = os.sched_getaffinity(0), pinning.cores().receiver
    with pinning.here(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
