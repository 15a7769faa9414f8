"""The virtual machine itself: what the tests beside this one count on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from glacic.lab import traffic, vm
from glacic.lab.home import SERVER, SERVER_6, home

QUEUE = "table inet t { chain c { type filter hook forward priority 0; queue num 100 bypass; }; }"


def test_the_kernel_is_the_stock_one_and_has_the_queue_statement() -> None:
    assert platform.release() == os.environ[vm.IN_GUEST]
    assert not vm.needed()


def test_a_queue_without_a_listener_lets_packets_pass_because_it_says_bypass() -> None:
    with home() as lab, lab.server.call(traffic.Echo, [80], [53]):
        lab.router.run(["nft", QUEUE])
        assert "queue flags bypass to 100" in lab.router.run(["nft", "list", "ruleset"]).stdout
        assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=30).ok
        assert lab.camera.call(traffic.udp, SERVER_6, 53, timeout_s=30).ok


def test_what_is_written_outside_the_shared_folder_is_gone_with_the_guest(tmp_path: Path) -> None:
    assert tmp_path.is_relative_to("/run/scratch")
    roots = [line.split() for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/"]
    assert [fields[3].split(",")[0] for fields in roots] == ["ro"]
