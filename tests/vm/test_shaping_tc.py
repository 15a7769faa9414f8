"""Traffic control with everything a stock kernel has: downloads shaped by cgroup, and what is given back.

One network for all tests: `near` has the cgroups and the limits, `far` is the other end. Rates are wide, because
everything is slow here; what is exact is what is told apart.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.firewall.nft import Libnftables
from glacic.lab import transfer
from glacic.lab.net import Host, Network, Port
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Engine, Item
from glacic.shaping.tc.police import Police
from glacic.shaping.tc.shape import Shape

KIB = 1024
RATE = 256 * KIB
WIDE = (0.70, 1.15)  # of a rate
FAR, FAR_6, FAR_PUBLIC = "10.9.0.2", "fd09::2", "198.51.100.2"
FOREIGN = "foreign"  # a table of somebody else's, with counters and marks


@dataclass
class Lab:
    mount: Path
    near: Host
    far: Host

    def engine(self, kind: str) -> Engine:
        if kind == "police":
            return Police()
        return Shape(self.near.call(Libnftables), mount=lambda: self.mount)

    def item(self, name: str, path: str, **limits: int | Traffic) -> Item:
        cgroup = Cgroup(path, (self.mount / path).stat().st_ino, len(Path(path).parts))
        return Item(name=name, cgroup=cgroup, interface="v0", **limits)  # type: ignore[arg-type]

    def put(self, engine: Engine, *items: Item) -> None:
        self.near.call(engine.put, items)

    def down(self, path: str, address: str = FAR, *, seconds: float = 3) -> float:
        with transfer.connection(self.mount, self.mount / path, self.near, self.far, address) as (near, far):
            return transfer.rate(far, near, seconds=seconds)

    def up(self, path: str, address: str = FAR, *, seconds: float = 3) -> float:
        with transfer.connection(self.mount, self.mount / path, self.near, self.far, address) as (near, far):
            return transfer.rate(near, far, seconds=seconds)

    def unlimited(self, path: str, *addresses: str) -> bool:
        """Whether nothing holds its downloads back."""
        return all(self.down(path, address, seconds=0.5) > 8 * RATE for address in addresses or (FAR,))

    def tc(self, *lines: str) -> None:
        for line in lines:
            self.near.run(["tc", *line.split()])

    def everything(self) -> tuple[object, ...]:
        """What there is of links, qdiscs, filters and tables."""
        listed = [
            json.loads(self.near.run(command.split()).stdout or "[]")
            for command in ("tc -j qdisc show", "ip -j -d link", "tc -j filter show dev v2 ingress")
        ]
        return (*listed, self.near.run(["nft", "list", "ruleset"]).stdout)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    mount = tmp_path_factory.mktemp("cgroup2")
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
    try:
        with Network() as net, transfer.cgroups(mount, "t", "t/a", "t/b", "t/a/in"):
            near, far = net.host("near"), net.host("far")
            addresses = [(f"10.9.0.{n}/24", f"fd09::{n}/64", f"198.51.100.{n}/24") for n in (1, 2)]
            net.cable(Port(near, "v0", "", addresses[0]), Port(far, "v1", "", addresses[1]))
            net.cable(Port(near, "v2"), Port(far, "v3"))
            lab = Lab(mount, near, far)
            near.ip("link add theirs type ifb", "link set theirs up")  # what somebody else has here
            lab.tc("qdisc add dev v2 root handle 5: prio", "qdisc add dev v2 handle ffff: ingress")
            lab.tc("filter add dev v2 parent ffff: matchall action mirred egress redirect dev theirs")
            near.run(["nft", "-f", "-"], text=FOREIGN_TABLE)
            yield lab
    finally:
        subprocess.run(["umount", mount], check=True)


FOREIGN_TABLE = f"""
table inet {FOREIGN} {{
    counter marked {{ }}
    chain out {{
        type filter hook output priority 0
        ct mark set ct mark | 0x00201234
    }}
    chain in {{
        type filter hook prerouting priority -150
        meta mark != 0 counter name marked
    }}
}}
"""


@pytest.fixture
def shape(lab: Lab) -> Iterator[Shape]:
    engine = lab.engine("shape")
    assert isinstance(engine, Shape)
    yield engine
    lab.near.call(engine.remove)


def about(rate: float, wanted: float) -> bool:
    return WIDE[0] * wanted <= rate <= WIDE[1] * wanted


def counted(lab: Lab, engine: Engine) -> Callable[[str, str], int]:
    counters = lab.near.call(engine.counters)
    return lambda name, direction: counters[name, direction].bytes


def test_a_download_and_an_upload_are_shaped_and_the_sibling_cgroup_is_not(lab: Lab, shape: Shape) -> None:
    lab.put(shape, lab.item("a", "t/a", upload=RATE, download=2 * RATE))
    assert about(lab.down("t/a"), 2 * RATE)
    assert about(lab.down("t/a", FAR_6), 2 * RATE)
    assert about(lab.up("t/a"), RATE)
    seen = counted(lab, shape)
    assert seen("a", DOWNLOAD) > 2 * seen("a", UPLOAD) > 4 * RATE
    assert lab.unlimited("t/b")
    assert lab.up("t/b", seconds=0.5) > 8 * RATE
    assert counted(lab, shape)("a", DOWNLOAD) - seen("a", DOWNLOAD) < 10 * KIB  # answers to what was still queued


def test_no_packet_brings_a_mark_to_the_hooks_and_other_bits_of_the_connection_s_mark_stay(
    lab: Lab, shape: Shape
) -> None:
    lab.put(shape, lab.item("a", "t/a", download=RATE))
    lab.near.run(["nft", "reset", "counter", "inet", FOREIGN, "marked"])
    with transfer.connection(lab.mount, lab.mount / "t/a", lab.near, lab.far, FAR) as (near, far):
        assert about(transfer.rate(far, near, seconds=3), RATE)
        marks = lab.near.run(["nft", "list", "counter", "inet", FOREIGN, "marked"]).stdout
        assert "packets 0 " in marks
        port = near.getpeername()[1]
        entries = lab.near.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    (mark,) = {
        int(word.removeprefix("mark="))
        for line in entries.splitlines()
        if f"dport={port} " in line
        for word in line.split()
        if word.startswith("mark=")
    }
    assert mark & 0x00FF_FFFF == 0x0020_1234
    assert mark >> 24 in range(1, 256)


def test_a_changed_rate_holds_at_once_for_a_running_connection(lab: Lab, shape: Shape) -> None:
    lab.put(shape, lab.item("a", "t/a", download=RATE))
    with transfer.connection(lab.mount, lab.mount / "t/a", lab.near, lab.far, FAR) as (near, far):
        assert about(transfer.rate(far, near, seconds=3), RATE)
        lab.put(shape, lab.item("a", "t/a", download=4 * RATE))
        assert about(transfer.rate(far, near, seconds=3), 4 * RATE)
        lab.put(shape, lab.item("b", "t/b", download=4 * RATE))  # and so does its end
        assert transfer.rate(far, near, seconds=1) > 8 * RATE


def test_traffic_to_the_internet_is_limited_and_local_traffic_is_not(lab: Lab, shape: Shape) -> None:
    lab.put(shape, lab.item("a", "t/a", download=RATE, traffic=Traffic.INTERNET))
    assert about(lab.down("t/a", FAR_PUBLIC), RATE)
    assert lab.unlimited("t/a")
    lab.put(shape, lab.item("a", "t/a", download=RATE, traffic=Traffic.LOCAL))
    assert lab.unlimited("t/a", FAR_PUBLIC)
    assert about(lab.down("t/a", FAR), RATE)


def test_a_limit_inside_another_shares_its_rate(lab: Lab, shape: Shape) -> None:
    lab.put(shape, lab.item("a", "t/a", download=RATE), lab.item("in", "t/a/in", download=4 * RATE))
    assert about(lab.down("t/a/in"), RATE)
    lab.put(shape, lab.item("a", "t/a", download=4 * RATE), lab.item("in", "t/a/in", download=RATE))
    assert about(lab.down("t/a/in"), RATE)
    assert about(lab.down("t/a"), 4 * RATE)


@pytest.mark.parametrize("kind", ["shape", "police"])
def test_everything_is_as_it_was_after_a_removal_and_after_a_kill(lab: Lab, kind: str) -> None:
    before = lab.everything()
    item = lab.item("a", "t/a", upload=RATE, download=RATE)
    engine = lab.engine(kind)
    lab.put(engine, item)
    assert lab.everything() != before
    lab.near.call(engine.remove)
    assert lab.everything() == before
    lab.put(engine, item)  # and now a new process that knows nothing of it
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from glacic.firewall.nft import Libnftables\n"
        "from glacic.shaping.tc.police import Police\n"
        "from glacic.shaping.tc.shape import Shape\n"
        "engine = Police() if sys.argv[1] == 'police' else Shape(Libnftables(), mount=Path)\n"
        "engine.adopt()\n"
    )
    lab.near.python(code, kind)
    assert lab.everything() == before


def test_police_limits_the_whole_interface(lab: Lab) -> None:
    police = lab.engine("police")
    try:
        lab.put(police, lab.item("a", "t/a", upload=2 * RATE, download=2 * RATE))
        assert about(lab.down("t/b"), 2 * RATE)
        assert about(lab.up("t/a"), 2 * RATE)
        lab.put(police, lab.item("a", "t/a", download=8 * RATE))
        assert 3 * RATE < lab.down("t/b") < 9 * RATE
        assert lab.up("t/b", seconds=0.5) > 8 * RATE
        assert lab.near.call(police.counters)["a", DOWNLOAD].dropped_packets > 0
    finally:
        lab.near.call(police.remove)


@pytest.mark.parametrize("kind", ["shape", "police"])
def test_an_interface_where_somebody_else_has_filters_is_refused_by_name(lab: Lab, kind: str) -> None:
    before = lab.everything()
    item = lab.item("a", "t/a", download=RATE)
    with pytest.raises(KernelRefused, match=r"v2 has a qdisc ingress that Glacic did not make.*tc qdisc del dev v2"):
        lab.put(lab.engine(kind), Item(name="a", cgroup=item.cgroup, download=RATE, interface="v2"))
    assert lab.everything() == before


def test_tc_s_cgroup_classifier_on_an_ifb_never_sees_a_download_and_the_connection_s_mark_does(
    lab: Lab, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "cgroup", "-o", "net_cls", "none", tmp_path], check=True)
    group = tmp_path / "t"
    try:
        group.mkdir()
        (group / "net_cls.classid").write_text(str(0x0002_0010))
        lab.near.ip("link add ifbx type ifb", "link set ifbx up")
        for device in ("v0", "ifbx"):
            lab.tc(
                f"qdisc add dev {device} root handle 2: htb default 1",
                f"class add dev {device} parent 2: classid 2:1 htb rate 10gbit quantum 60000",
                f"class add dev {device} parent 2: classid 2:10 htb rate 10gbit quantum 60000",
                f"filter add dev {device} parent 2: prio 1 protocol all handle 1 cgroup",
            )
        lab.tc("qdisc add dev v0 handle ffff: ingress")
        redirect = "matchall action connmark action mirred egress redirect dev ifbx"
        lab.tc(f"filter add dev v0 parent ffff: protocol all {redirect}")
        exchange(lab, group, lab.mount / "t/a")
        assert _class_bytes(lab, "v0") > RATE  # the classifier itself works: uploads
        assert _class_bytes(lab, "ifbx") == 0
        lab.tc("filter add dev ifbx parent 2: prio 2 protocol all handle 0x30000000/0xff000000 fw flowid 2:10")
        table = "table inet pin { chain out { type filter hook output priority 0; ct mark set 0x30000000; }; }"
        lab.near.run(["nft", table])
        exchange(lab, group, lab.mount / "t/a")
        assert _class_bytes(lab, "ifbx") > RATE
    finally:
        lab.near.run(["nft", "delete table inet pin"], check=False)
        for command in ("qdisc del dev v0 root", "qdisc del dev v0 ingress"):
            lab.near.run(["tc", *command.split()], check=False)
        lab.near.run(["ip", "link", "del", "ifbx"], check=False)
        group.rmdir()
        subprocess.run(["umount", tmp_path], check=True)


EXCHANGE = f"""
import os, socket, sys
for group in sys.argv[3:]:
    with open(group + "/cgroup.procs", "w") as members:
        members.write(str(os.getpid()))
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as near:
    near.sendall(bytes({4 * RATE}))
    near.shutdown(socket.SHUT_WR)
    while near.recv(65536):
        pass
"""


def exchange(lab: Lab, *groups: Path) -> None:
    """4 RATE bytes each way. The near end is a process that is in these cgroups; the far end, as a packet on a cable
    between namespaces still has its sender's socket at ingress, is this one, which is in none of them."""
    with lab.far.call(socket.create_server, (FAR, 0)) as listener:
        listener.settimeout(60)
        port = str(listener.getsockname()[1])
        near = lab.near.popen([sys.executable, "-c", EXCHANGE, FAR, port, *map(str, groups)])
        try:
            with listener.accept()[0] as far:
                far.settimeout(60)
                while far.recv(64 * KIB):
                    pass
                far.sendall(bytes(4 * RATE))
            assert near.wait(60) == 0
        finally:
            lab.near.end(near)


def _class_bytes(lab: Lab, device: str) -> int:
    """What class 2:10 has sent."""
    words = lab.near.run(["tc", "-s", "class", "show", "dev", device, "classid", "2:10"]).stdout.split()
    return int(words[words.index("Sent") + 1])
