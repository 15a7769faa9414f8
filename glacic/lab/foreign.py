"""The lab, other people's tables: rulesets in the style of programs that share a machine with Glacic, and proof that
they are left alone.

    foreign_tables   a router with all of them lives through everything that Glacic does to the kernel; each table's
                     listing, with handles, is summed before and after every step

The rulesets are our own, written as those programs write theirs: by iptables-nft where they use that (their tables hold
xtables matches and targets, which nft can list and cannot write), by nft elsewhere. Counters' values are left out of
the listings: packets flow. Refuses to load anything outside a namespace of the lab.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from glacic.errors import LabError
from glacic.lab import traffic
from glacic.lab.home import SERVER, Home, home
from glacic.lab.kernel import require
from glacic.lab.net import Host
from glacic.lab.service import Glacic

RELOADS = 3
PATIENT_S = 20.0
PORT = 8001
NEEDS = {"iptables-nft-restore": "iptables", "ip6tables-nft-restore": "iptables", "nft": "nftables"}

CONFIG = """\
integrity = "restore"
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
nat "out" {
  type          = "masquerade"
  out_interface = "wan0"
  src_ip        = "10.1.0.0/24"
}
"""

# A container engine: its chains in ip nat and ip filter, the administrator's own rule in DOCKER-USER.
CONTAINERS = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 18080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -i lan0 -m comment --comment "the lab's own" -j ACCEPT
-A DOCKER-USER -i wan0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A FORWARD -o docker0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A POSTROUTING -o virbr9 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
"""

# A front end for the same, and a script of an administrator, on IPv6.
FRONT_END = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:ufw6-before-input - [0:0]
:ufw6-user-input - [0:0]
:ufw6-logging-deny - [0:0]
-A INPUT -j ufw6-before-input
-A ufw6-before-input -i lo -j ACCEPT
-A ufw6-before-input -m rt --rt-type 0 -j DROP
-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
-A ufw6-before-input -j ufw6-user-input
-A ufw6-user-input -p tcp -m multiport --dports 22,443 -m limit --limit 6/min -j ACCEPT
-A ufw6-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
COMMIT
"""

# A program that bans, two that decide by lists, a zone firewall, a virtualisation daemon, a hand-written file.
NATIVE = """\
table inet f2b-table {
	set addr-set-sshd {
		type ipv4_addr
		flags timeout
		timeout 30d
		elements = { 192.0.2.10, 192.0.2.44 timeout 60d }
	}
	set addr6-set-sshd {
		type ipv6_addr
		elements = { 2001:db8:bad::1 }
	}
	chain f2b-chain {
		type filter hook input priority filter - 1; policy accept;
		tcp dport 22 ip saddr @addr-set-sshd reject with icmp port-unreachable
		tcp dport 22 ip6 saddr @addr6-set-sshd reject with icmpv6 port-unreachable
	}
}
table ip crowdsec {
	set crowdsec-blacklists {
		type ipv4_addr
		flags timeout
		elements = { 198.51.100.1 timeout 40d, 198.51.100.2 timeout 40d, 198.51.100.3 timeout 40d }
	}
	chain crowdsec-chain-input {
		type filter hook input priority filter - 10; policy accept;
		ip saddr @crowdsec-blacklists counter drop
	}
	chain crowdsec-chain-forward {
		type filter hook forward priority filter - 10; policy accept;
		ip saddr @crowdsec-blacklists counter drop
	}
}
table ip6 crowdsec6 {
	set crowdsec6-blacklists {
		type ipv6_addr
		flags timeout
		elements = { 2001:db8:66::1 timeout 40d }
	}
	chain crowdsec6-chain-input {
		type filter hook input priority filter - 10; policy accept;
		ip6 saddr @crowdsec6-blacklists counter drop
	}
}
table inet firewalld {
	ct helper helper-ftp-tcp {
		type "ftp" protocol tcp
		l3proto inet
	}
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		jump mangle_PREROUTING_ZONES
	}
	chain mangle_PREROUTING_ZONES {
		iifname "br9" goto mangle_PRE_internal
	}
	chain mangle_PRE_internal {
		meta mark & 0x00008000 == 0x00008000 counter
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		jump filter_INPUT_ZONES
	}
	chain filter_INPUT_ZONES {
		iifname "br9" goto filter_IN_internal
	}
	chain filter_IN_internal {
		ip daddr 224.0.0.251 udp dport 5353 ct state { new, untracked } accept
		tcp dport 22 ct state { new, untracked } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname "br9" reject with icmpx admin-prohibited
	}
	chain nat_POSTROUTING {
		type nat hook postrouting priority srcnat + 10; policy accept;
		oifname "br9" ip saddr 192.0.2.0/24 masquerade
	}
}
table ip libvirt_network {
	chain forward {
		type filter hook forward priority filter; policy accept;
		counter jump guest_cross
		counter jump guest_output
	}
	chain guest_output {
		ip saddr 192.168.122.0/24 iif "lo" counter accept
		iifname "virbr0" counter reject
	}
	chain guest_cross {
		iifname "virbr0" oifname "virbr0" counter accept
	}
	chain guest_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.168.122.0/24 ip daddr 224.0.0.0/24 counter return
		meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
	}
}
table inet hand_written {
	map services {
		type inet_service : verdict
		elements = { 2222 : drop, 3333 : jump old }
	}
	set seen {
		type ipv4_addr
		size 1024
		flags dynamic,timeout
		timeout 40d
	}
	counter everything {
	}
	quota enough {
		over 500 mbytes
	}
	limit slowly {
		rate 10/second
	}
	chain old {
		comment "nobody knows any more"
		counter drop
	}
	chain input {
		type filter hook input priority security; policy accept;
		tcp dport vmap @services
		counter name "everything" comment "a \'quoted\' remark"
	}
}
table ip glacic {
	chain input {
		type filter hook input priority filter + 20; policy accept;
		counter comment "of another family, and not ours"
	}
}
table inet glacic2 {
	set allowed_lan_wan_mac_port {
		typeof ether saddr . meta l4proto . th dport
		elements = { 02:00:00:00:00:77 . tcp . 80 }
	}
}
table bridge filter {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ether type arp counter
	}
}
"""


def load(host: Host) -> None:
    """Load all of them on a host of the lab. Raises LabError where a program or a kernel module is missing."""
    require(NEEDS, "tables of other programs")
    host.run(["iptables-nft-restore"], text=CONTAINERS)
    host.run(["ip6tables-nft-restore"], text=FRONT_END)
    host.run(["nft", "-f", "-"], text=NATIVE)


def sums(host: Host) -> dict[str, str]:
    """Table ("inet firewalld") -> SHA-256 of its listing with handles, ours left out."""
    names = re.findall(r"^table (\S+ \S+)$", host.run(["nft", "list", "tables"]).stdout, re.MULTILINE)
    return {name: _sum(host, name) for name in sorted(names) if name != "inet glacic"}


def _sum(host: Host, table: str) -> str:
    listing = host.run(["nft", "-a", "-s", "list", "table", *table.split()]).stdout
    return sha256(listing.encode()).hexdigest()


def foreign_tables(folder: Path) -> list[dict[str, str]]:
    """A row for each table of others: {"table", "before", "after"}, the sums of its listing.

    after: as of the end, or of the first step after which it was not as before. folder: for the service's files.
    """
    with home() as lab, lab.server.call(traffic.Echo, [PORT]):
        load(lab.router)
        before = sums(lab.router)
        after = dict(before)
        for what in _life(lab, Glacic(lab.router, folder, CONFIG)):
            now = sums(lab.router)
            if unexpected := now.keys() - before.keys():
                raise LabError(f"after {what} there are tables that nobody made: {', '.join(sorted(unexpected))}")
            after |= {table: now.get(table, f"gone after {what}") for table in before if after[table] == before[table]}
    return [{"table": table, "before": before[table], "after": after[table]} for table in before]


def _life(lab: Home, glacic: Glacic) -> Iterator[str]:
    """Everything that Glacic does to a kernel, step by step."""
    with glacic:
        yield "the start"
        for number in range(RELOADS):
            glacic.call("reload")
            yield f"reload {number + 1}"
        if not lab.laptop.call(traffic.tcp, SERVER, PORT, timeout_s=PATIENT_S).ok:
            raise LabError(f"the laptop's connection did not pass:\n{glacic.log.read_text()[-4000:]}")
        yield "learning"
        glacic.cli("flows", "deny", "--all", "--port", str(PORT))
        yield "denying"
        for change in ("flush table inet glacic", "delete table inet glacic", "insert rule inet glacic input accept"):
            restored = _restored(glacic)
            lab.router.run(["nft", *change.split()])
            glacic.wait("right again", _is_restored(glacic, restored))
            yield f"putting right: {change}"
        worker = glacic.worker()
        os.kill(worker, signal.SIGKILL)
        glacic.wait("running again", lambda: glacic.state() == "running" and glacic.worker() != worker)
        yield "the end of a worker"
    yield "the stop"
    glacic.cli("unload")
    yield "unloading"


def _restored(glacic: Glacic) -> list[str]:
    return [row["at"] for row in glacic.call("status")["drift"] if row["restored"]]


def _is_restored(glacic: Glacic, before: list[str]) -> Callable[[], bool]:
    return lambda: _restored(glacic)[-1:] != before[-1:] and glacic.state() == "running"
