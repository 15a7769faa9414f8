"""The worker's process before it is a worker: it imports, waits, and is gone when nobody needs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from glacic.ctlplane import protocol
from glacic.ctlplane.spawn import spawn


def test_it_takes_its_folder_and_then_requests(tmp_path: Path) -> None:
    spawned = spawn()
    try:
        spawned.link.sendall(protocol.pack({"folder": str(tmp_path)}))
        spawned.link.sendall(protocol.pack({"id": 1, **protocol.request("stop", {})}))
        with spawned.link.makefile("rb") as lines:
            answers = [message for line in lines if "id" in (message := protocol.unpack(line))]
        assert [message["id"] for message in answers] == [1]
        assert spawned.process.wait(60) == 0
    finally:
        spawned.end()


def test_one_that_nobody_needed_ends_with_the_socket() -> None:
    spawned = spawn()
    spawned.link.close()
    assert spawned.process.wait(60) == 0


def test_ending_it_twice_is_nothing() -> None:
    spawned = spawn()
    spawned.end()
    assert spawned.process.returncode == -signal.SIGKILL
    spawned.end()


def test_it_is_under_way_before_anything_that_takes_time_is_imported() -> None:
    code = "import sys, glacic.ctlplane.spawn; print(sorted({'asyncio', 'sqlalchemy', 'hcl2'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
