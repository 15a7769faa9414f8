"""glacic.shaping.scratch: a network for one question, of which nothing is left, however the question ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from glacic.errors import GlacicError, KernelRefused
from glacic.shaping import scratch
from glacic.shaping.cgroups import find
from glacic.shaping.far import PORT
from glacic.shaping.scratch import INTERFACE, THERE, Scratch


def _owner(cgroup: str) -> Path:
    """The process that made it, in /proc."""
    return Path("/proc", cgroup.removeprefix("glacic-try-").split(".")[0])


def _left() -> list[str]:
    """Cgroups of trials that are over; somebody else on this machine may be in the middle of one."""
    return [path.name for path in find().mount.glob("glacic-try-*") if not _owner(path.name).exists()]


def _own_network() -> list[str]:
    return [str(Path("/proc/self/ns/net").readlink()), *(name for _, name in socket.if_nameindex())]


def test_the_answer_comes_back_and_nothing_of_the_caller_has_changed() -> None:
    before = [_own_network(), Path("/proc/self/cgroup").read_text(), _left()]

    def work(made: Scratch) -> Any:
        return {"interfaces": [name for _, name in socket.if_nameindex()], "far": made.far.ask("counts")}

    assert scratch.inside(work) == {"interfaces": ["lo", INTERFACE], "far": {}}
    assert [_own_network(), Path("/proc/self/cgroup").read_text(), _left()] == before


@pytest.mark.parametrize("family", [4, 6])
def test_the_other_end_is_reached_by_tcp_on_both_families(family: int) -> None:
    def work(made: Scratch) -> Any:
        with socket.create_connection((THERE[family], PORT), 5) as tcp:
            tcp.sendall(bytes(1000))
            tcp.shutdown(socket.SHUT_WR)
            tcp.recv(1)
        return made.far.ask("counts")["tcp"]

    assert scratch.inside(work) == 1000


def test_a_process_is_in_the_cgroup_for_the_block_and_no_longer() -> None:
    def work(made: Scratch) -> Any:
        seen = []
        for cgroup in (made.limited, made.free):
            with made.of(cgroup):
                seen.append(_cgroup_of_this_process() == f"/{cgroup.path}")
        return [*seen, _cgroup_of_this_process()]

    assert scratch.inside(work) == [True, True, "/"]


def _cgroup_of_this_process() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::")).removeprefix("0::")


def test_an_error_of_ours_comes_back_as_one() -> None:
    def work(_: Scratch) -> Any:
        raise GlacicError("not today")

    with pytest.raises(KernelRefused, match="not today"):
        scratch.inside(work)
    assert _left() == []


def test_so_does_what_the_kernel_says_to_the_work_itself() -> None:
    with pytest.raises(KernelRefused, match=r"Connection refused$"):
        scratch.inside(lambda _: socket.create_connection((THERE[4], 1), 5))


def test_a_command_that_fails_says_which_and_why() -> None:
    with pytest.raises(KernelRefused, match=r"ip link delete nothing: Cannot find device"):
        scratch.inside(lambda made: made.command("ip", "link", "delete", "nothing"))


def test_without_the_rights_it_says_who_has_them() -> None:
    code = "from glacic.shaping import scratch\nscratch.inside(lambda made: 1)\n"
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        "KernelRefused: no scratch namespace and cgroup: [Errno 1] Operation not permitted; run it as root"
        in done.stderr
    )
    assert _left() == []


def test_what_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(KernelRefused, match="took too long"):
        scratch.inside(lambda _: time.sleep(100), patience_s=1.0)
    assert time.monotonic() - begun < 30
    assert _left() == []


def test_both_processes_end_with_the_one_that_asked_and_the_next_trial_removes_its_cgroups() -> None:
    code = (
        "import time\n"
        "from glacic.shaping import scratch\n"
        "scratch.inside(lambda made: print('there', flush=True) or time.sleep(100))\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"there\n"
    (owner,) = Path(f"/proc/{asker.pid}/task/{asker.pid}/children").read_text().split()
    made = [path.name for path in find().mount.glob(f"glacic-try-{owner}.*")]
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    asker.stdout.close()
    until = time.monotonic() + 10
    while Path("/proc", owner).exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path("/proc", owner).exists()
    until = time.monotonic() + 10
    while _left() and time.monotonic() < until:
        scratch.sweep(find().mount)
    assert len(made) == 2
    assert _left() == []
