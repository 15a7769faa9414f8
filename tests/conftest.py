"""What all tests share: settings of hypothesis, a watch for leftovers, and what is said above and below the results.

`make test` tests the installed wheel: pytest's import mode (pyproject.toml) keeps this folder's `glacic` off the path.
With `python -m pytest` it is the source tree. An installed wheel that is not this source tree's is refused.
"""

from __future__ import annotations

import faulthandler
import filecmp
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import glacic
from glacic import native
from glacic.lab import net, vm

SOURCE = Path(__file__).resolve().parents[1] / "glacic"
TESTED = Path(glacic.__file__).resolve().parent

hypothesis.settings.register_profile("machine", deadline=None, print_blob=True, database=None)
hypothesis.settings.register_profile("guest", parent=hypothesis.settings.get_profile("machine"), max_examples=20)
hypothesis.settings.load_profile("guest" if vm.IN_GUEST in os.environ else "machine")


def pytest_configure(config: pytest.Config) -> None:
    if vm.IN_GUEST not in os.environ:
        _refuse_a_stale_wheel()
        if os.geteuid() == 0:
            net.sweep()  # of runs that were killed
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by SIGTERM", returncode=128 + signal.SIGTERM))
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # kill -USR1 shows where a run that seems to hang is


def _refuse_a_stale_wheel() -> None:
    if TESTED == SOURCE:
        built = getattr(native.road, "__file__", None)
        newest = max(path.stat().st_mtime for path in (SOURCE / "native").glob("*.[ch]"))
        if built is not None and Path(built).stat().st_mtime < newest:
            pytest.exit("the compiled part is older than its sources: run tools/native", returncode=4)
        return
    sources = _sources(SOURCE)
    installed = _sources(TESTED)
    if sources != installed or not all(filecmp.cmp(SOURCE / name, TESTED / name, shallow=False) for name in sources):
        pytest.exit(f"the glacic in {TESTED} is not this source tree's: run make setup", returncode=4)


def _sources(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for ending in ("py", "pyi", "c", "h") for path in folder.rglob(f"*.{ending}")}


def pytest_report_header() -> str:
    tested = "the source tree" if TESTED == SOURCE else f"the wheel, in {TESTED}"
    return f"glacic {glacic.__version__}: {tested}, {'compiled' if native.road is not None else 'in Python alone'}"


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fails the test that leaves a network namespace or a process. What a wider fixture holds is there before it; a
    process of that which the test has ended and started again, with the same words, is no other one."""
    namespaces, children = set(net.leftovers(os.getpid())), _children()
    yield
    left = set(net.leftovers(os.getpid())) - namespaces
    assert not left, f"network namespaces left behind: {', '.join(sorted(left))}"
    running = _children() - children
    assert not running, f"processes left behind: {', '.join(sorted(running))}"


def _children() -> Counter[str]:
    """This process's children by their command, and how many there are of each."""
    found: Counter[str] = Counter()
    for listed in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listed.read_text().split()
        except OSError:  # that thread has just ended
            continue
        found.update(map(_command, pids))
    # Python's own is kept for reuse.
    return Counter({child: count for child, count in found.items() if "multiprocessing.resource_tracker" not in child})


def _command(pid: str) -> str:
    try:
        return (
            Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            or "(ended)"
        )
    except OSError:
        return "(ended)"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests ran in the virtual machine; their reports carry the kernel's name (tests/vm/conftest.py)."""
    if vm.IN_GUEST in os.environ:
        return
    ran: dict[str, str] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            properties = dict(report.user_properties)
            if vm.IN_GUEST in properties:
                ran[report.nodeid] = str(properties[vm.IN_GUEST])
    kernels = ", ".join(sorted(set(ran.values())))
    terminalreporter.section("virtual machine")
    count = f"{len(ran)} test{'' if len(ran) == 1 else 's'}"
    terminalreporter.write_line(f"{count} ran in the virtual machine{f' (Linux {kernels})' if kernels else ''}")
