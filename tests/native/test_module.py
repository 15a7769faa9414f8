"""The compiled part as a module: what is without it, and what a child process finds of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from glacic.firewall import claims
from glacic.native import road as built

from .conftest import (
    CLIENT,
    MARKS,
    NOT_BUILT,
    POLICIES,
    SETTINGS,
    VPN,
    logged,
    syn,
)


def python(code: str) -> None:
    """Runs it in a process of its own, with the glacic that is tested here."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run([sys.executable, "-c", path + textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_built_here() -> None:
    assert built is not None, NOT_BUILT


@pytest.mark.parametrize(
    "hidden", ["sys.modules['glacic.native._road'] = None", "sys.meta_path.insert(0, NotBuilt())"], ids=["None", "gone"]
)
def test_without_it_everything_is_done_in_python(hidden: str) -> None:
    """Cache, holder and both readers; who insists on it is told."""
    python(
        f"""
        class NotBuilt:
            def find_spec(self, name, path=None, target=None):
                if name == "glacic.native._road":
                    raise ModuleNotFoundError(name)

        {hidden}
        """
        + """
        from types import SimpleNamespace
        from glacic.config.policies import LearningPolicy
        from glacic.ctlplane import netlink
        from glacic.ctlplane.nflog import LogReader
        from glacic.ctlplane.nfqueue import QueueReader
        from glacic.ctlplane.reading import Holder, Rules
        from glacic.learning.cache import FlowCache
        from glacic.learning.census import Census
        from glacic.learning.engine import Engine, Limits
        from glacic.learning.store import Store
        from glacic.learning.switch import LearningSwitch
        from glacic.native import road

        def refused(make):
            try:
                make()
            except ValueError as error:
                return "not built" in str(error)

        assert road is None
        census = Census({}, 0, lambda source: (0, 0))
        assert refused(lambda: FlowCache(5, census, compiled=True))
        cache = FlowCache(5, census)
        assert cache.table is None
        with Store.temporary() as store:
            engine = Engine(
                [LearningPolicy(name="lan_wan", number=3)],
                store=store,
                cache=cache,
                switch=LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=["lan_wan"], now_ns=0),
                limits=Limits(),
                on_change=lambda change: None,
            )
            holder = Holder(Rules(engine=engine, highest_number=3))
            assert holder.compiled is None
            assert refused(lambda: QueueReader(5, holder, compiled=True))
            assert refused(lambda: LogReader(5, holder, compiled=True))
            queue, log = QueueReader(5, holder), LogReader(5, holder)
            assert queue.stats()["compiled"] is log.stats()["compiled"] is False
            packet = bytes.fromhex("45000028000100004006000000000000000a0000010a000002"[:24]) + bytes.fromhex(
                "0a0000010a0000029c40005000000000000000005002000000000000"
            )
            assert queue._answer(packet, 0x830000, 0, None) == (1, 0, -1, False)
            assert queue._answer(packet, 0x830000, 0, None) == (1, 0, -1, False)
            assert queue.stats()["decisions"] == {"learned on first use": 1, "cached allow": 1}
            body = netlink.generic(2) + netlink.attribute(10, b"lan_wan: ") + netlink.attribute(9, packet)
            log._read(netlink.message(netlink.NFULNL_MSG_PACKET, body))
            assert log.stats()["decisions"] == {"cached allow": 1}
        """
    )


def test_a_child_process_finds_the_table_unlocked(road: ModuleType) -> None:
    """However busy a packet thread is at the moment of the fork: this one has the lock nearly always."""
    python(
        f"""
        import os, signal, threading
        from glacic.native import road

        table, rules = road.Table(100), road.Rules()
        rules.set(table, {POLICIES!r}, **{SETTINGS | {"field": claims.field(9), "highest_number": 9}!r})
        key = ("vpn_wan", {CLIENT!r}, 6, 80, b"")
        table.put(key, None, 2, ())
        log, early = road.Log(-1, 7, rules, print), [{logged(syn(80), b"vpn_wan: ")!r} * 5000]
        log.stop()
        enough = threading.Event()

        def flood():
            while not enough.is_set():
                log.run(early)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        for _ in range(50):
            if not (child := os.fork()):
                signal.alarm(10)
                table.put(key, None, 3, ())
                assert rules.state({MARKS[VPN]}, {syn(80)!r}, None, 1) == 3
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, "a child waited for the lock for ever"
        enough.set()
        thread.join()
        assert log.figures()["by_state"][2] == log.figures()["received"] > 5000
        """
    )
