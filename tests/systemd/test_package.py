"""The Debian package under a real systemd: installed, reloaded, killed, rebooted, upgraded, removed and purged.

    host     builds the package and a newer one, boots a Debian with nothing of Glacic in it (glacic/lab/machine)
    guest    lan0 10.9.0.1 <--cable--> 10.9.0.2 "peer", a network namespace: the administrator's own machine
             port 22 greets, as an ssh server does, and port 2222 echoes; both are there before Glacic is

The story is played once, because each of its steps needs those before; what was seen in each is kept, and the tests
below say what must have been seen. They come in any order.
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

pytestmark = pytest.mark.timeout(1500)  # whichever test comes first plays the story

ROOT = Path(__file__).resolve().parents[2]
EXPOSURE = 1.4  # what `systemd-analyze security` may say at most: docs/deploy.md says what each tenth is for

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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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
        guest.reboot()
        _rebooted(see)
        configure("a mistake in the file", BROKEN)
        guest.reboot()
        _rebooted_broken(see)
        configure("the mistake mended", LEARNING)
        _upgraded_and_removed(see, second)
    for name in ("exposure", "exposure of the boot unit"):
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
    see("trouble", "journalctl --no-pager -u 'glacic*' | grep -iE 'permission|not permitted|denied'")
    see("the removal", "dpkg -r glacic")
    see("removed", "systemctl is-active glacic.service; nft list tables; ls /usr/lib/glacic /usr/bin/glacic")
    see("reached after the removal", REACH)
    see("left after the removal", "ls /etc/glacic /var/lib/glacic")
    see("the purge", "dpkg -P glacic")
    see("left after the purge", "ls -d /etc/glacic /var/lib/glacic /etc/systemd/system/*/glacic* /run/glacic")
    see("failed in the end", FAILED)


def test_the_package_has_no_path_of_the_machine_that_built_it(packages: list[Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-R", str(packages[0]), str(tmp_path)], check=True)
    folders = re.compile(re.escape(str(ROOT).encode()) + rb"|/tmp/tmp\.\w")  # of the sources, and of the build
    found = [path for path in tmp_path.rglob("*") if path.is_file() and folders.search(path.read_bytes())]
    assert not found


def test_the_first_installation_starts_the_service_and_locks_nobody_out(story: Story) -> None:
    assert story["the installation"].status == 0, story.output("the installation")
    assert story.output("installed").splitlines()[:2] == ["active", "0"]
    assert "Active: active (running)" in story.output("status"), story.output("status")
    assert story.output("reached before") == story.output("reached") == "SSH-2.0"
    assert story.output("the session").split() == ["one", "two"], "what was open went on"


def test_the_unit_is_as_closed_as_the_job_allows(story: Story) -> None:
    for name in ("exposure", "exposure of the boot unit"):
        last = story.output(name).splitlines()[-1]
        assert float(re.search(r": (\d+\.\d) ", last)[1]) <= EXPOSURE, story.output(name)  # type: ignore[index]


def test_both_processes_are_the_services_user_with_one_right(story: Story) -> None:
    rows = [line.split() for line in story.output("processes").splitlines()]
    values = {name: [row[1:] for row in rows if row[0] == f"{name}:"] for name in ("CapEff", "CapBnd", "NoNewPrivs")}
    assert values == {
        "CapEff": [["0000000000001000"]] * 2,
        "CapBnd": [["0000000000001000"]] * 2,
        "NoNewPrivs": [["1"]] * 2,
    }
    assert all(row[1] != "0" for row in rows if row[0] in {"Uid:", "Gid:"})
    assert [row[1:] for row in rows if row[0] == "CapAmb:"] == [["0000000000001000"], ["0" * 16]], "the worker has less"
    assert [row for row in rows if len(row) == 1] == [["0"], ["-10"]], "and goes before the others"


def test_the_socket_and_what_was_learned_are_nobody_elses(story: Story) -> None:
    assert story.output("the socket").splitlines() == [
        "srw-rw---- glacic glacic",
        "drwx------ glacic glacic",
        "-rw------- glacic glacic",
    ]


def test_the_tables_of_the_grammar_came_with_the_package(story: Story) -> None:
    assert story.output("the grammar's tables") == "start"


def test_a_reload_by_systemd_comes_back_when_the_new_ruleset_is_in_force(story: Story) -> None:
    assert story["the reload"].status == 0
    assert story.output("reloaded").startswith("active")
    assert story.output("reached through the service") == "SSH-2.0"


def test_the_confined_service_learns(story: Story) -> None:
    assert story.output("learned") == "hello"
    flows = story.document("flows")
    assert [(flow["state"], flow["port"]) for flow in flows] == [("allowed", 2222)]
    queue = story.document("figures")["queues"][0]
    assert queue["kernel_dropped"] == queue["user_dropped"] == 0


def test_what_root_restores_the_service_can_use(story: Story) -> None:
    assert story["the restored flows"].status == 0, story.output("the restored flows")
    assert story.document("flows after restoring")[0]["port"] == 2222


def test_the_confined_service_still_sees_who_asks(story: Story) -> None:
    assert "guest-agent.service" in story.output("the trail"), "the session of whoever approved a flow"


def test_a_refused_reload_fails_and_changes_nothing(story: Story) -> None:
    assert story["the refused reload"].status != 0
    assert "dorp" in story.output("the reason")
    assert story.output("refused").startswith("active")
    assert story.output("the rules after") == story.output("the rules before")


def test_a_killed_service_is_started_again(story: Story) -> None:
    assert story["killed"].status == 0
    assert story.output("after the kill").splitlines()[:2] == ["active", "1"]
    assert story.output("reached after the kill") == "SSH-2.0"


def test_other_tables_are_as_they_were(story: Story) -> None:
    assert story["the other table before"].status == 0
    assert story.output("the other table before") == story.output("the other table after")


def test_it_is_back_after_a_power_cut_with_what_it_learned(story: Story) -> None:
    assert story.output("after the reboot").splitlines()[0] == "active"
    assert story.output("the system after the reboot") == "running"
    assert story.output("reached after the reboot") == "SSH-2.0"
    assert len(story.document("flows after the reboot")) == 1


def test_the_ruleset_is_there_before_the_network(story: Story) -> None:
    *times, cycles = map(int, story.output("the order of the boot").splitlines())
    assert times == sorted(times)
    assert times[0] > 0
    assert cycles == 0


def test_a_mistake_in_the_file_at_boot_leaves_the_machine_closed_reachable_and_loud(story: Story) -> None:
    state, _, document = story.output("broken").split("\n", 2)
    status = json.loads(document)
    assert (state, status["state"]) == ("active", "degraded")
    assert "dorp" in status["reason"]
    assert story.output("the boot unit") == "active"
    assert story.output("reached while it is broken") == "SSH-2.0", "management"
    assert story.output("learned before it was broken") == "hello"
    assert story["new while it is broken"].status == 124, "no answer"
    assert int(story.output("dropped while it is broken")) > 0
    assert "dorp" in story.output("the log of a broken configuration")


def test_a_reload_with_the_mistake_mended_opens_it_again(story: Story) -> None:
    assert story["mended"].status == 0, story.output("mended")
    assert story.document("mended")["state"] == "running"


def test_an_upgrade_keeps_the_service_the_configuration_and_the_flows(story: Story) -> None:
    assert story["the upgrade"].status == 0, story.output("the upgrade")
    assert story.output("version").endswith("-2")
    assert story.output("upgraded").splitlines()[0] == "active"
    assert story.output("reached after the upgrade") == "SSH-2.0"
    assert len(story.document("flows after the upgrade")) == 1


def test_a_removal_leaves_no_ruleset_and_what_was_learned(story: Story) -> None:
    assert story["the removal"].status == 0, story.output("the removal")
    assert "glacic" not in re.sub(r"/usr/\S*glacic", "", story.output("removed").replace("cannot access", ""))
    assert story.output("reached after the removal") == "SSH-2.0"
    assert {"glacic.hcl", "flows.db"} <= set(story.output("left after the removal").split())


def test_a_purge_leaves_nothing(story: Story) -> None:
    assert story["the purge"].status == 0, story.output("the purge")
    assert all("cannot access" in line for line in story.output("left after the purge").splitlines())


def test_no_unit_failed_and_nothing_was_refused_to_the_service(story: Story) -> None:
    assert story.output("failed on the first day") == story.output("failed in the end") == ""
    assert story.output("tracebacks") == "0"
    assert story.output("trouble") == ""
