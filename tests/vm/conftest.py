"""Tests in this folder run in a virtual machine whose kernel has nftables' `queue` statement.

    host     collects as ever; after all other tests it boots one guest for the collected tests of this folder
    guest    the same pytest on the same files; each report is written to reports.jsonl in a folder that both see
    host     reads them back as they come, as its own reports, with the guest's text of a failure

The guest's boot is no test's time. Whatever keeps a test from running there (a missing package, a guest that dies)
fails it by name; nothing is skipped. In the guest, marked by an environment variable, this file only writes the
reports.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import vm

FOLDER = Path(__file__).resolve().parent
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
    session.items = [item for item in session.items if not _is_ours(item)]
    result = yield
    if ours and not session.shouldfail and not session.shouldstop:
        HostSide(session, ours).run()
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
    """Runs the guest and reports what it reports. It is the stream of the guest's output, so that output wakes it."""

    def __init__(self, session: pytest.Session, items: Sequence[pytest.Item]) -> None:
        self._config = session.config
        self._waiting = {item.nodeid: item for item in items}
        self._started: set[str] = set()
        self._output = bytearray()
        self._read = 0  # bytes of the report file

    def run(self) -> None:
        """One guest for all; every test that has no report in the end fails."""
        try:
            with vm.shared_folder() as folder:
                status = self._boot(folder)
            why = f"pytest in the virtual machine ended with status {status} and no result for this test"
        except LabError as error:
            why = str(error)
        for item in list(self._waiting.values()):
            self._fail(item, why)

    def _boot(self, folder: Path) -> int:
        """The guest, from boot to end; everything that it reported has been passed on then, even if it failed."""
        self._path = folder / REPORTS
        self._path.touch()
        try:
            return vm.run(
                self._command(folder),
                timeout_s=GUEST_TIMEOUT_S,
                cwd=self._config.rootpath,
                environment=self._environment(str(folder)),
                writable=[folder],
                stdout=self,
                stderr=self,
                say=self._say,
            )
        finally:
            self._drain()

    def write(self, data: bytes) -> int:
        """The guest has printed something, so there may be a report."""
        self._output += data
        self._drain()
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
