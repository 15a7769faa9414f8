"""glacic.lab.ending: processes end, however they resist, and signals unwind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from glacic.lab import ending

IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(1000)"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_inside_the_block_raises_and_the_default_is_back_after_it(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as raised, ending.ends_cleanly():
            signal.raise_signal(number)
        assert raised.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_programs_own_handler_stays() -> None:
    seen = []
    before = signal.signal(signal.SIGHUP, lambda *_: seen.append("mine"))
    try:
        with ending.ends_cleanly():
            signal.raise_signal(signal.SIGHUP)
        assert seen == ["mine"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_the_block_changes_nothing() -> None:
    handlers = []

    def enter() -> None:
        with ending.ends_cleanly():
            handlers.append(signal.getsignal(signal.SIGHUP))

    before = signal.getsignal(signal.SIGHUP)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_process_that_ends_when_asked_is_asked() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert ending.end_process(process, patience_s=10) == -signal.SIGTERM


def test_a_process_that_ignores_it_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", IGNORES], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert ending.end_process(process, patience_s=0.05) == -signal.SIGKILL


def test_a_process_that_has_ended_keeps_its_status() -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as process:
        process.wait()
        assert ending.end_process(process, patience_s=10) == 3


def test_a_group_ends_with_its_leader_or_after_it() -> None:
    for shell in ("sleep 1000 & echo $!; wait", "sleep 1000 & echo $!"):  # the second leader is gone at once
        with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, start_new_session=True) as leader:
            assert leader.stdout is not None
            leader.stdout.readline()
            ending.end_group(leader, patience_s=10)
            assert leader.stdout.read() == b"", "its pipe is closed by everybody who held it"


def test_killing_passes_over_itself_and_what_is_gone() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    ending.kill([os.getpid(), gone.pid])


def test_an_owner_is_dead_when_its_process_is_and_never_when_the_name_says_nothing() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert ending.owner_is_dead(f"{gone.pid}-x")
    assert not ending.owner_is_dead(f"{os.getpid()}-x")
    assert not any(ending.owner_is_dead(name) for name in ("", "-", "x-1", f"{gone.pid}", "²-x"))
