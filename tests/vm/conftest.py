"""Tests in this folder run in a virtual machine whose kernel has nftables' `queue` statement.

    host     collects as ever; behind all other tests it boots one guest for the collected tests of this folder
    guest    the same pytest on the same files; each report is written to reports.jsonl in a folder that both see
    host     reads them back as they come, as its own reports, with the guest's text of a failure

Tests of tests/systemd have a machine of their own, as slow as this one and as careless of the clock: those come last of
all others, and both guests run beside each other. The guest's boot is no test's time. Whatever keeps a test from
running there (a missing package, a guest that dies) fails it by name; nothing is skipped. In the guest, marked by an
environment variable, this file only writes the reports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import vm

FOLDER = Path(__file__).resolve().parent
BESIDE = FOLDER.parent / "systemd"
REPORTS = "reports.jsonl"
SHARED = "GLACIC_TEST_REPORTS"  # environment, in the guest: the folder that both sides see
TEST_TIMEOUT_S = 600  # for one test in the guest, in place of pyproject's: everything is 10 to 20 times slower there
GUEST_TIMEOUT_S = 3000  # for all of them


def pytest_configure(config: pytest.Config) -> None:
    """Called when this file is loaded, on both sides."""
    if vm.IN_GUEST in os.environ:
        config.pluginmanager.register(GuestSide(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The guest's tests come last: a mistake that any test can find is found before the boot."""
    items.sort(key=_is_ours)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """On the host: takes this folder's tests out of the loop, so that no fixture and no timeout there meets them."""
    if vm.IN_GUEST in os.environ or session.config.option.collectonly:
        return (yield)
    ours = [item for item in session.items if _is_ours(item)]
    if not ours:
        return (yield)
    others = [item for item in session.items if not _is_ours(item)]
    beside = [item for item in others if item.path.is_relative_to(BESIDE)]
    session.items = [item for item in others if item not in beside] + beside
    with contextlib.ExitStack() as cleanup:
        host = HostSide(session, ours, beside, cleanup)
        session.config.pluginmanager.register(host)
        result = yield
        if not session.shouldfail and not session.shouldstop:
            host.finish()
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
        return result


def _is_ours(item: pytest.Item) -> bool:
    return item.path.is_relative_to(FOLDER)


class GuestSide:
    """Writes every report as one line of JSON, at once."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._path = Path(os.environ[SHARED], REPORTS)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.user_properties.append((vm.IN_GUEST, os.environ[vm.IN_GUEST]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a") as file:
            file.write(json.dumps(data) + "\n")


class HostSide(io.RawIOBase):
    """Runs the guest and reports what it reports. The guest has a thread, whose output this is; reports are made by
    pytest's own thread, between its tests and after them.

    An interrupted run does not wait for that thread: the guest ends with this process (glacic/lab/vm.py).
    """

    def __init__(
        self,
        session: pytest.Session,
        items: Sequence[pytest.Item],
        beside: Sequence[pytest.Item],
        cleanup: contextlib.ExitStack,
    ) -> None:
        self._config = session.config
        self._cleanup = cleanup
        self._waiting = {item.nodeid: item for item in items}
        self._beside = {item.nodeid for item in beside}
        self._started: set[str] = set()
        self._output = bytearray()
        self._read = 0  # bytes of the report file
        self._path = Path()  # of the report file
        self._why = ""  # a test has no result
        self._thread: threading.Thread | None = None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """The first of the tests that ours run beside begins."""
        if nodeid in self._beside:
            self._begin()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """One of them has ended: what the guest has reported meanwhile is passed on."""
        if nodeid in self._beside:
            self._drain()

    def finish(self) -> None:
        """Every test has been reported when this returns; one that the guest has no report of has failed."""
        self._begin()
        assert self._thread is not None
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.2)
        self._drain()
        for item in list(self._waiting.values()):
            self._fail(item, self._why)

    def _begin(self) -> None:
        if self._thread is None:
            folder = self._cleanup.enter_context(vm.shared_folder())
            self._path = folder / REPORTS
            self._path.touch()
            self._thread = threading.Thread(target=self._boot, args=[folder], name="guest", daemon=True)
            self._thread.start()

    def _boot(self, folder: Path) -> None:
        """The guest, from boot to end."""
        try:
            status = vm.run(
                self._command(folder),
                timeout_s=GUEST_TIMEOUT_S,
                cwd=self._config.rootpath,
                environment=self._environment(str(folder)),
                writable=[folder],
                stdout=self,
                stderr=self,
                say=self._say,
            )
            self._why = f"pytest in the virtual machine ended with status {status} and no result for this test"
        except Exception as error:
            self._why = str(error) if isinstance(error, LabError) else traceback.format_exc()

    def write(self, data: bytes) -> int:
        """The guest has printed something."""
        self._output += data
        return len(data)

    def _command(self, shared: Path) -> list[str]:
        """pytest with exactly these tests, in this order."""
        listed = shared / "tests"
        listed.write_text("".join(f"{nodeid}\n" for nodeid in self._waiting))
        command = [sys.executable, "-P", "-m", "pytest", f"@{listed}", "-v", "-p", "no:cacheprovider"]
        command += [f"--timeout={TEST_TIMEOUT_S}", "--basetemp=/run/scratch/pytest"]
        seed = self._config.getoption("randomly_seed", None)
        command += ["-p", "no:randomly"] if seed is None else [f"--randomly-seed={seed}", "--randomly-dont-reorganize"]
        if maxfail := self._config.getoption("maxfail", 0):
            command.append(f"--maxfail={maxfail}")
        return command

    def _environment(self, shared: str) -> dict[str, str]:
        """The guest tests the glacic that is tested here."""
        parent = vm.PACKAGE_FOLDER.parent
        path = {"PYTHONPATH": str(parent)} if parent == self._config.rootpath else {}
        scratch = {"HYPOTHESIS_STORAGE_DIRECTORY": "/run/scratch/hypothesis", "PYTHONDONTWRITEBYTECODE": "1"}
        return {SHARED: shared, **scratch, **path}

    def _say(self, line: str) -> None:
        if terminal := self._config.pluginmanager.get_plugin("terminalreporter"):
            terminal.ensure_newline()
            terminal.write_line(line)

    def _drain(self) -> None:
        """Passes on the reports that were written since the last time; a line that is not complete yet waits."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                data = json.loads(line)
                self._pass_on(self._config.hook.pytest_report_from_serializable(config=self._config, data=data))

    def _pass_on(self, report: pytest.TestReport) -> None:
        item = self._waiting.get(report.nodeid)
        if item is None:
            return
        self._start(item)
        item.ihook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            del self._waiting[report.nodeid]
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _start(self, item: pytest.Item) -> None:
        if item.nodeid not in self._started:
            self._started.add(item.nodeid)
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)

    def _fail(self, item: pytest.Item, why: str) -> None:
        """A report of our own; the first one has the end of what the guest printed."""
        sections = (
            [("the virtual machine's output", self._output[-6000:].decode(errors="replace"))] if self._output else []
        )
        self._pass_on(pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call", sections))
        self._pass_on(pytest.TestReport(item.nodeid, item.location, {}, "passed", None, "teardown"))
        self._output.clear()
