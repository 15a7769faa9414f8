"""The Debian package under a real systemd: installed, reloaded, killed, rebooted, upgraded, removed and purged.

    host     builds the package and a newer one, boots a Debian with nothing of Glacic in it (glacic/lab/machine)
    guest    lan0 10.9.0.1 <--cable--> 10.9.0.2 "peer", a network namespace: the administrator's own machine
             port 22 greets, as an ssh server does, and port 2222 echoes; both are there before Glacic is

The story is played once, because each of its steps needs those before; what was seen in each is kept, and the tests
of this folder say what must have been seen. They come in any order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from glacic.lab import machine
from glacic.lab.machine import Done, Machine

ROOT = Path(__file__).resolve().parents[2]

NETWORK = """
# As ifupdown's networking.service and cloud-init.service stand to each other: the base system waits for the network.
cat > /etc/systemd/system/peer.service << 'END'
[Unit]
DefaultDependencies=no
After=network-pre.target local-fs.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'ip netns add peer; \\
    ip link add lan0 type veth peer name eth0 address 02:00:00:00:00:02 netns peer; \\
    ip addr add 10.9.0.1/24 dev lan0; ip link set lan0 up; \\
    ip -n peer addr add 10.9.0.2/24 dev eth0; ip -n peer link set eth0 up'
[Install]
WantedBy=sysinit.target
END
cat > /etc/systemd/system/cloud.service << 'END'
[Unit]
DefaultDependencies=no
After=peer.service
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/true
[Install]
WantedBy=sysinit.target
END
for port in 22 2222; do
    printf '[Socket]\\nListenStream=%s\\nAccept=yes\\n[Install]\\nWantedBy=sockets.target\\n' $port \\
        > /etc/systemd/system/port$port.socket
done
printf '[Service]\\nExecStart=-/bin/echo SSH-2.0\\nStandardOutput=socket\\n' > /etc/systemd/system/port22@.service
printf '[Service]\\nExecStart=-/bin/cat\\nStandardInput=socket\\nStandardOutput=socket\\n' \\
    > /etc/systemd/system/port2222@.service
# The unit's own limits are for machines that are not emulated.
mkdir -p /etc/systemd/system/glacic.service.d
printf '[Service]\\nTimeoutStartSec=600\\nWatchdogSec=300\\n' > /etc/systemd/system/glacic.service.d/slow.conf
systemctl daemon-reload
systemctl enable --now peer.service cloud.service port22.socket port2222.socket
nft 'table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c {
    type filter hook input priority 5; ip saddr @s counter drop; }; }'
# A session that is open while everything changes: its second line is sent when /run/go is there.
systemd-run --quiet --unit=session ip netns exec peer bash -c 'exec 3<>/dev/tcp/10.9.0.1/2222; echo one >&3; read a <&3
    echo "$a" > /run/session; until [ -e /run/go ]; do sleep 0.2; done; echo two >&3; read -t 60 b <&3
    echo "$b" >> /run/session'
until [ -e /run/session ]; do sleep 0.2; done
"""
REACH = "ip netns exec peer timeout 60 bash -c 'exec 3<>/dev/tcp/10.9.0.1/22 && head -c 7 <&3'"
ORDER = (
    "for unit in glacic-boot.service network-pre.target peer.service sysinit.target glacic.service; do\n"
    "systemctl show -P ActiveEnterTimestampMonotonic $unit; done; journalctl --no-pager -b | grep -c 'ordering cycle'"
)
ECHO = "ip netns exec peer timeout 60 bash -c 'exec 3<>/dev/tcp/10.9.0.1/2222 && echo hello >&3 && head -n 1 <&3'"
STATE = "systemctl is-active glacic.service; systemctl show -P NRestarts glacic.service; glacic status --json"
RULES = "nft -s list table inet glacic"
FAILED = "systemctl --failed --no-legend --plain"

LEARNING = """
rule_learning {
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = 100
}
zone "lan" {
  interface = "lan0"
  management {
    ssh = true
  }
}
policy "lan" "firewall" {
  action = "drop"
}
"""
BROKEN = LEARNING.replace('action = "drop"', 'action = "dorp"')


@dataclass
class Story:
    """What was seen, by the name of the step."""

    seen: dict[str, Done] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Done:
        return self.seen[name]

    def output(self, name: str) -> str:
        return self.seen[name].output.strip()

    def document(self, name: str) -> Any:
        """The JSON document that the step's output is."""
        return json.loads(self.seen[name].output)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package, and the same with a newer version."""
    quickly = {**os.environ, "COMPRESSION": "-Zgzip -z1"}
    done = subprocess.run([str(ROOT / "tools" / "deb")], capture_output=True, text=True, env=quickly)
    assert done.returncode == 0, done.stderr
    first = Path(done.stdout.strip().splitlines()[-1])
    folder = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "-R", str(first), str(folder / "root")], check=True)
    control = folder / "root" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)-1$", r"\1-2", control.read_text(), flags=re.MULTILINE))
    second = folder / "newer.deb"
    again = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build"]
    subprocess.run([*again, str(folder / "root"), str(second)], check=True, stdout=subprocess.DEVNULL)
    return [first, second]


@pytest.fixture(scope="session")
def story(packages: list[Path], pytestconfig: pytest.Config) -> Story:
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    say = terminal.write_line if terminal else print
    told = Story()
    with machine.started(say) as guest:
        for package in packages:
            shutil.copy(package, guest.shared)
        first, second = (f"/shared/{package.name}" for package in packages)

        def see(name: str, script: str, timeout_s: float = 300) -> Done:
            told.seen[name] = guest.run(script, timeout_s=timeout_s)
            return told.seen[name]

        def configure(name: str, text: str) -> None:
            see(name, f"cat > /etc/glacic/glacic.hcl << 'END'\n{text}END\n")

        _installed(guest, see, first)
        _reloaded(see, configure)
        _limited(guest, see, configure)
        guest.reboot()
        _rebooted(see)
        configure("a mistake in the file", BROKEN)
        guest.reboot()
        _rebooted_broken(see)
        configure("the mistake mended", LEARNING)
        _upgraded_and_removed(see, second)
    for name in ("exposure", "exposure of the boot unit", "exposure of the engines unit"):
        say(told.output(name).splitlines()[-1])
    return told


See = Callable[..., Done]


def _installed(guest: Machine, see: See, package: str) -> None:
    see("the network", NETWORK)
    see("reached before", REACH)
    see("the other table before", "nft -s list table inet other")
    see("the installation", f"DEBIAN_FRONTEND=noninteractive dpkg -i {package}", 600)
    see("installed", STATE)
    see("status", "systemctl status --no-pager --lines=20 glacic.service")
    see("reached", REACH)
    see("the session", "touch /run/go; until [ $(wc -l < /run/session) = 2 ]; do sleep 0.2; done; cat /run/session")
    see("exposure", "systemd-analyze security --no-pager glacic.service")
    see("exposure of the boot unit", "systemd-analyze security --no-pager glacic-boot.service")
    see(
        "processes",
        "for pid in $(cat /sys/fs/cgroup/system.slice/glacic.service/cgroup.procs); do\n"
        'grep -E "^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap...):" /proc/$pid/status; ps -o ni= -p $pid; done',
    )
    see("the socket", "stat -c '%A %U %G' /run/glacic/glacic.sock /var/lib/glacic /var/lib/glacic/flows.db")
    see(
        "the grammar's tables",
        '/usr/bin/python3 -I -c \'import sys; sys.path.insert(0, "/usr/lib/glacic"); import lark.lark\n'
        'lark.lark.load_grammar = None\nimport hcl2; print(hcl2.parses_to_tree("a = 1\\n").data)\'',
    )


def _reloaded(see: See, configure: Callable[[str, str], None]) -> None:
    configure("a configuration that learns", LEARNING)
    see("the reload", "systemctl reload glacic.service")
    see("reloaded", STATE)
    see("reached through the service", REACH)
    see("learned", ECHO)
    see("flows", "glacic flows list --json")
    see("the restored flows", "glacic backup /root/flows.backup && glacic restore /root/flows.backup --json")
    see("flows after restoring", "glacic flows list --json")
    see("the trail", "glacic flows approve 1; glacic audit --json")
    see("figures", "glacic stats --json")
    see("the rules before", RULES)
    configure("a configuration that is wrong", BROKEN)
    see("the refused reload", "systemctl reload glacic.service")
    see("refused", STATE)
    see("the reason", "journalctl --no-pager --lines=30 -u glacic.service")
    see("the rules after", RULES)
    configure("the right one again", LEARNING)
    see(
        "killed",
        "pid=$(systemctl show -P MainPID glacic.service); kill -9 $pid\n"
        "for i in $(seq 200); do now=$(systemctl show -P MainPID glacic.service)\n"
        '[ "$now" != 0 ] && [ "$now" != $pid ] && systemctl -q is-active glacic.service && exit 0; sleep 0.5; done\n'
        "exit 1",
    )
    see("after the kill", STATE)
    see("reached after the kill", REACH)
    see("the other table after", "nft -s list table inet other")
    see("failed on the first day", FAILED)


def _rebooted(see: See) -> None:
    see("after the reboot", STATE)
    see("the system after the reboot", f"systemctl is-system-running; {FAILED}")
    see("reached after the reboot", REACH)
    see("the order of the boot", ORDER)
    see("flows after the reboot", "glacic flows list --json")


def _rebooted_broken(see: See) -> None:
    see("broken", STATE)
    see("the boot unit", "systemctl is-active glacic-boot.service")
    see("reached while it is broken", REACH)
    see("learned before it was broken", ECHO)
    see("new while it is broken", REACH.replace("/22 ", "/2223 ").replace("timeout 60", "timeout 5"))
    see(
        "dropped while it is broken",
        "nft list table inet glacic | grep -c 'counter packets [1-9][0-9]* bytes [0-9]* drop'",
    )
    see("the log of a broken configuration", "journalctl --no-pager -b -u glacic.service")


def _upgraded_and_removed(see: See, package: str) -> None:
    see("mended", "systemctl reload glacic.service && glacic status --json")
    see("the upgrade", f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i {package}", 600)
    see("upgraded", STATE)
    see("version", "dpkg-query -W -f '${Version}' glacic")
    see("reached after the upgrade", REACH)
    see("flows after the upgrade", "glacic flows list --json")
    see("tracebacks", "journalctl --no-pager -u 'glacic*' | grep -c Traceback")
    see(
        "trouble",  # but for what the drop-in is for, which _limited() has asked for without it
        "journalctl --no-pager -u 'glacic*' | grep -v limits-bpf.conf | grep -iE 'permission|not permitted|denied'",
    )
    see("the removal", "dpkg -r glacic")
    see("removed", "systemctl is-active glacic.service; nft list tables; ls /usr/lib/glacic /usr/bin/glacic")
    see("reached after the removal", REACH)
    see("left after the removal", "ls /etc/glacic /var/lib/glacic")
    see("the purge", "dpkg -P glacic")
    see("left after the purge", "ls -d /etc/glacic /var/lib/glacic /etc/systemd/system/*/glacic* /run/glacic")
    see("failed in the end", FAILED)


RESTARTS = 100
RATE = 100 << 10  # bytes per second, of the limit in both directions
LIMITED = f"""
limit "flood" {{
  unit     = "flood.service"
  upload   = "100 KiB/s"
  download = "100 KiB/s"
}}
{LEARNING}"""
FLOOD = """
printf '[Slice]\\n' > /etc/systemd/system/flood.slice
printf '[Service]\\nSlice=flood.slice\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/keeps-the-slice.service
cat > /etc/systemd/system/flood.service << 'END'
[Unit]
StartLimitIntervalSec=0
[Service]
Slice=flood.slice
User=65534
ExecStart=/usr/local/bin/flood $WHAT
END
cp /shared/flood /usr/local/bin/flood
systemctl daemon-reload
systemctl start keeps-the-slice.service
systemd-run --quiet --unit=far-end ip netns exec peer /usr/local/bin/flood serve
# Behind the limits' table: what the unit's own sockets sent and got. At the far end: what came, whoever limits it.
nft 'table inet watch { counter upload { }; counter download { };
    chain o { type filter hook output priority 300; socket cgroupv2 level 1 "flood.slice" counter name upload; };
    chain i { type filter hook input priority 300; socket cgroupv2 level 1 "flood.slice" counter name download; }; }'
ip netns exec peer nft 'table inet watch { counter came { };
    chain i { type filter hook prerouting priority 0; udp dport 9000 counter name came; }; }'
"""
TRIED = "until [ -e /var/lib/glacic/limit-engines.json ]; do sleep 0.5; done; cat /var/lib/glacic/limit-engines.json"
RESTARTED = f"""
cut -d ' ' -f 1 /proc/uptime
for i in $(seq {RESTARTS}); do systemctl restart flood.service; sleep 0.2; done
systemctl stop flood.service
cut -d ' ' -f 1 /proc/uptime
"""
# Time and bytes, at the beginning and at the end of some seconds.
NOW = """
now() {
    echo $(cut -d ' ' -f 1 /proc/uptime) \\
        $(ip netns exec peer nft list counter inet watch came | grep -o 'bytes [0-9]*' | cut -d ' ' -f 2)
}
"""
SPAN = f"{NOW}\nnow; sleep 3; now\n"
KILLED = f"""{NOW}
systemctl set-environment WHAT=up
systemctl start flood.service
sleep 3; now; sleep 3; now
pid=$(systemctl show -P MainPID glacic.service); kill -9 $pid
sleep 0.5; now; sleep 3; now; systemctl is-active glacic.service
for i in $(seq 400); do new=$(systemctl show -P MainPID glacic.service)
    [ "$new" != 0 ] && [ "$new" != $pid ] && systemctl -q is-active glacic.service && break; sleep 0.5; done
sleep 1; now; sleep 3; now
"""
SHOWN = "glacic limits show flood --json"
QDISCS = "tc qdisc show dev lan0; ip -brief link show type ifb"


def _limited(guest: Machine, see: See, configure: Callable[[str, str], None]) -> None:
    flood = guest.shared / "flood"
    subprocess.run(["cc", "-O2", "-static", "-o", str(flood), str(Path(__file__).with_name("flood.c"))], check=True)
    see("the flood", FLOOD)
    configure("a limit", LIMITED)
    see("the reload with a limit", "systemctl reload glacic.service")
    see("the engines", TRIED)
    see("exposure of the engines unit", "systemd-analyze security --no-pager glacic-engines.service")
    see("the restarts", RESTARTED, 600)
    see("the limit after the restarts", SHOWN)
    see("the bytes after the restarts", "nft -j list counters table inet watch")
    see("killed under an nft limit", KILLED)
    see("the nft limit after the kill", SHOWN)
    see("the qdiscs before", QDISCS)
    configure("a limit that shapes", LIMITED.replace("  unit ", '  engine = "shape"\n  interface = "lan0"\n  unit '))
    see("the reload with a limit that shapes", "systemctl reload glacic.service")
    see("the flood shaped", SPAN)
    see("the limit that shapes", SHOWN)
    see("the qdiscs meanwhile", QDISCS)
    configure("a limit in eBPF", LIMITED.replace('download = "100 KiB/s"', 'engine = "bpf"'))
    see("the reload with a limit in eBPF", "systemctl reload glacic.service")
    see("eBPF without the right", SHOWN)
    see("the qdiscs after", QDISCS)
    shutil.copy(ROOT / "deploy" / "limits-bpf.conf", guest.shared)
    see(
        "the right",
        "cp /shared/limits-bpf.conf /etc/systemd/system/glacic.service.d/\n"
        "systemctl daemon-reload; systemctl restart glacic.service",
    )
    see("killed under a limit in eBPF", KILLED)
    see("the limit in eBPF after the kill", SHOWN)
    see("what is pinned", "find /sys/fs/bpf/glacic -type f | sort")
    see("rights with the drop-in", "systemd-analyze security --no-pager glacic.service | tail -n 1")
    configure("no limit any more", LEARNING)
    see("the reload without a limit", "systemctl stop flood.service; systemctl reload glacic.service")
    see("left of the limits", "find /sys/fs/bpf/glacic -type f; nft list tables | grep limits")
    see(
        "the right taken back",
        "rm /etc/systemd/system/glacic.service.d/limits-bpf.conf /sys/fs/bpf/glacic -r; nft delete table inet watch\n"
        "systemctl daemon-reload; systemctl restart glacic.service; systemctl stop far-end keeps-the-slice",
    )
