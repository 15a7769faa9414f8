"""`glacic limits run`: the command begins under its limit, in a cgroup of its own, and nothing of either is left.

Real cgroups below this machine's cgroup2 mount, and a service that only says that the limit is in force. Root.
"""

from __future__ import annotations

import ast
import itertools
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import glacic
from glacic.ctlplane.cli.limits_run import cgroup_of
from glacic.errors import KernelRefused

PATIENCE_S = 60.0
START = "import sys\nfrom glacic.ctlplane.cli import limits_run, main\n{}\nsys.exit(main(sys.argv[1:]))\n"
WITHOUT_SYSTEMD = "limits_run.SYSTEMD = limits_run.Path('/nonexistent')"
RATE = ("--download", "1 MiB/s")


@pytest.fixture
def mount() -> Path:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(Path(words[1]) for words in mounts if words[2] == "cgroup2")


@pytest.fixture(autouse=True)
def no_cgroup_is_left(mount: Path) -> Iterator[None]:
    before = set(mount.glob("glacic-run-*"))
    yield
    assert set(mount.glob("glacic-run-*")) <= before


@pytest.fixture
def service(fake: Any, row: Any, mount: Path) -> Any:
    fake.answers |= {
        "limits.list": {"limits": [row()], "mount": str(mount), "default": None, "trouble": ""},
        "limits.set": lambda args: row(**{**args, "state": "active"}),
        "limits.clear": lambda args: {"cleared": args["name"]},
    }
    return fake


def command(service: Any, *words: str, patch: str = WITHOUT_SYSTEMD, variables: Sequence[str] = ()) -> list[str]:
    this = f"PYTHONPATH={Path(glacic.__file__).parents[1]}"
    start = START.format(patch)
    return [
        *("env", "--default-signal"),  # whoever runs the tests in the background has a shell that ignores some
        *variables,
        this,
        sys.executable,
        "-P",
        "-c",
        start,
        "limits",
        "run",
        "--socket",
        str(service.path),
        *words,
    ]


@pytest.fixture
def run(service: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str, **other: Any) -> subprocess.CompletedProcess[str]:
        line = command(service, *words, **other)
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S)

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_is_in_a_cgroup_of_its_own_which_is_limited(run: Run, service: Any, mount: Path) -> None:
    done = run(*RATE, "--", "grep", "^0::", "/proc/self/cgroup")
    (limit,) = service.args("limits.set")
    assert done.stdout == f"0::/{limit['target']}\n"
    assert limit == {
        "name": limit["name"],
        "kind": "cgroup",
        "target": f"glacic-{limit['name']}",
        "upload": None,
        "download": 1 << 20,
    }
    assert [name for name, _ in service.asked] == ["limits.list", "limits.set", "limits.clear"]
    assert service.args("limits.clear") == [{"name": limit["name"]}]
    assert not (mount / limit["target"]).exists()


def test_what_is_said_of_the_limit_is_asked_for(run: Run, service: Any) -> None:
    words = ["--upload", "5 mbit", "--engine", "shape", "--traffic", "internet", "--interface", "eth0", "--name", "x"]
    assert run(*words, "--", "true").returncode == 0
    (limit,) = service.args("limits.set")
    assert {**limit, "target": ""} == {
        "name": "x",
        "kind": "cgroup",
        "target": "",
        "upload": 625_000,
        "download": None,
        "engine": "shape",
        "traffic": "internet",
        "interface": "eth0",
    }


def test_the_command_begins_when_its_limit_is_in_force(run: Run, service: Any, row: Any, tmp_path: Path) -> None:
    looks = itertools.count()
    begun = tmp_path / "begun"

    def show(args: dict[str, Any]) -> dict[str, Any]:
        assert not begun.exists()
        return row(args["name"], state="active" if next(looks) >= 3 else "waiting", kind="cgroup")

    service.answers["limits.set"] = lambda args: row(**args, state="waiting")
    service.answers["limits.show"] = show
    assert run(*RATE, "--", "touch", str(begun)).returncode == 0
    assert begun.exists()
    assert len(service.args("limits.show")) == 4


def test_a_limit_that_does_not_come_into_force_keeps_the_command_from_running(
    run: Run, service: Any, row: Any, tmp_path: Path
) -> None:
    service.answers["limits.set"] = lambda args: row(**args, state="waiting")
    service.answers["limits.show"] = lambda args: row(args["name"], state="waiting", kind="cgroup", why="who knows")
    patch = f"{WITHOUT_SYSTEMD}\nlimits_run.ACTIVE_S = 0.1"
    done = run(*RATE, "--", "touch", str(tmp_path / "begun"), patch=patch)
    assert done.returncode == 1
    assert "the limit is not in force after 0.1 s: who knows; the command was not run" in done.stderr
    assert not (tmp_path / "begun").exists()
    assert len(service.args("limits.clear")) == 1


def test_a_limit_that_is_refused_keeps_the_command_from_running(run: Run, service: Any, tmp_path: Path) -> None:
    def refuse(_: Any) -> None:
        raise KernelRefused("no engine can")

    service.answers["limits.set"] = refuse
    done = run(*RATE, "--", "touch", str(tmp_path / "begun"))
    assert (done.returncode, done.stderr) == (4, "glacic: no engine can\n")
    assert service.args("limits.clear") == []
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_commands(run: Run, code: int) -> None:
    assert run(*RATE, "--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT, signal.SIGPIPE])
def test_a_command_that_a_signal_ends_is_told_by_that_signal(run: Run, service: Any, number: int) -> None:
    assert run(*RATE, "--", "sh", "-c", f"kill -{int(number)} $$").returncode == -number
    assert len(service.args("limits.clear")) == 1


def test_what_one_that_was_killed_has_left_goes_with_the_next(run: Run, service: Any, mount: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, lives = mount / f"glacic-run-{ended.pid}-0a1b2c", mount / f"glacic-run-{os.getpid()}-0a1b2c"
    left.mkdir()
    lives.mkdir()
    try:
        assert run(*RATE, "--", "true").returncode == 0
        assert (left.exists(), lives.exists()) == (False, True)
    finally:
        lives.rmdir()


def test_the_exit_code_is_the_commands_where_there_is_no_output(service: Any) -> None:
    line = command(service, *RATE, "--", "sh", "-c", "exit 6")
    assert subprocess.run(["sh", "-c", '"$@" >&-', "sh", *line]).returncode == 6


def test_the_command_has_its_words_and_none_of_our_files_or_signals(run: Run) -> None:
    words = ["--", "--json", "$HOME", "a b", "-c", "", "limits"]
    shown = run(*RATE, "--", "sh", "-c", 'printf "<%s>" "$@"', "sh", *words)
    assert shown.stdout == "".join(f"<{word}>" for word in words)
    assert run(*RATE, "--", "ls", "/proc/self/fd").stdout.split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is its own, of that folder
    shown = run(*RATE, "--", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    ours = 0b11 << 31  # 32 and 33 are the C library's own, and make(1) starts everything with them ignored
    assert [int(mask, 16) & ~ours for mask in shown.stdout.split()[1::2]] == [0, 0]


def test_the_command_has_the_environment_that_we_were_given(run: Run) -> None:
    """Python puts LC_CTYPE into its own where it is started with the locale C."""
    given = ["-u", "LC_ALL", "-u", "LC_CTYPE", "-u", "PYTHONUTF8", "LANG=C", "A=b=c", "ODD=\udcff\n"]
    done = run(
        *RATE, "--", sys.executable, "-I", "-S", "-c", "print(open('/proc/self/environ', 'rb').read())", variables=given
    )
    assert done.stderr == ""
    environ = ast.literal_eval(done.stdout).split(b"\0")
    assert {b"LANG=C", b"A=b=c", b"ODD=\xff\n"} <= set(environ)
    assert [line for line in environ if line.startswith(b"LC_")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(service: Any, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 3' {number.name[3:]}; echo ready; for i in $(seq 600); do sleep 0.05; done"
    with subprocess.Popen(
        command(service, *RATE, "--", "sh", "-c", script), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "got\n"
        assert process.wait(PATIENCE_S) == 3


def test_a_key_of_the_terminal_reaches_the_command_once(service: Any) -> None:
    ours, theirs = pty.openpty()
    script = "n=0; trap 'n=$((n+1))' INT; echo ready; while [ $n -lt 1 ]; do sleep 0.05; done; sleep 0.3; echo got $n"

    line = ["setsid", "--ctty", *command(service, *RATE, "--", "sh", "-c", script)]
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    pressed = False
    with suppress(OSError):  # EIO: the other side has ended
        while piece := os.read(ours, 4096):
            shown += piece
            if b"ready" in shown and not pressed:
                pressed = True
                os.write(ours, b"\x03")
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    assert b"got 1\r\n" in shown


def test_what_the_command_leaves_running_stays_limited_until_it_ends(service: Any, tmp_path: Path) -> None:
    go, began = tmp_path / "go", tmp_path / "began"
    script = f"(touch {began}; until [ -e {go} ]; do sleep 0.05; done) & exit 5"
    with subprocess.Popen(
        command(service, *RATE, "--", "sh", "-c", script), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "left processes running: they stay limited" in process.stderr.readline()
        assert service.args("limits.clear") == []
        assert process.poll() is None
        go.touch()
        assert process.wait(PATIENCE_S) == 5
    assert len(service.args("limits.clear")) == 1


def test_a_signal_reaches_what_the_command_has_left_running(service: Any) -> None:
    script = "(trap 'exit 0' TERM; echo ready; for i in $(seq 600); do sleep 0.05; done) & exit 5"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(service, *RATE, "--", "sh", "-c", script), text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        assert "left processes running" in process.stderr.readline()
        process.terminate()
        assert process.wait(PATIENCE_S) == 5


def test_a_service_that_has_gone_fails_no_command_that_has_run(run: Run, service: Any) -> None:
    del service.answers["limits.clear"]
    done = run(*RATE, "--", "sh", "-c", "exit 6")
    assert done.returncode == 6
    assert "is not cleared: no such request" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--", "true"], 2, "say --upload, --download or both"),
        ([*RATE, "--name", "backup", "--", "true"], 2, "there is a limit backup already"),
        ([*RATE, "--", "no-such-command-here"], 127, "there is no command no-such-command-here"),
        ([*RATE, "--", "/no/such/command"], 127, "there is no command /no/such/command"),
        ([*RATE, "--", "/etc/passwd"], 126, "/etc/passwd is no program"),
        ([*RATE, "--", "/etc"], 126, "/etc is no program"),
        ([*RATE, "--", ""], 127, "there is no command"),
        ([*RATE], 2, "say which command"),
        ([*RATE, "--"], 2, "say which command"),
        ([*RATE, "--unit", "x.service", "--", "true"], 2, "unrecognized arguments: --unit"),
        ([*RATE, "--name", "a\nb", "--", "true"], 2, "control characters"),
        ([*RATE, "--name", "", "--", "true"], 2, "an empty name"),
        ([*RATE, "--name", "default:x.service", "--", "true"], 2, "a bucket that default_limit makes"),
        ([*RATE, "--interface", "eth0", "--", "true"], 2, "--interface cannot apply to engine auto"),
        ([*RATE, "--engine", "police", "--", "true"], 2, "engine police limits everybody on an interface"),
        (["--download", "none", "--", "true"], 2, "leave it out for no limit"),
    ],
)
def test_what_cannot_be_run(run: Run, service: Any, words: list[str], code: int, says: str) -> None:
    done = run(*words)
    assert done.returncode == code
    assert says in done.stderr
    assert "is not cleared" not in done.stderr
    assert service.args("limits.set") == []


def test_options_behind_the_command_are_its_own(run: Run, service: Any) -> None:
    done = run(*RATE, "sh", "-c", 'echo "$@"; exit 5', "sh", "--upload", "--", "x")
    assert (done.returncode, done.stdout) == (5, "--upload -- x\n")
    assert service.args("limits.set")[0]["upload"] is None


def test_a_file_that_is_no_program_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\x7fELF")
    (tmp_path / "text").chmod(0o755)
    done = run(*RATE, "--", str(tmp_path / "text"))
    assert done.returncode == 126
    assert "glacic: cannot run" in done.stderr


def test_a_place_where_no_cgroup_can_be_made_is_exit_4(run: Run, service: Any, tmp_path: Path) -> None:
    service.answers["limits.list"]["mount"] = str(tmp_path / "missing")
    done = run(*RATE, "--", "true")
    assert done.returncode == 4
    assert "cannot make the cgroup" in done.stderr


# With systemd, or what does as it does: makes the scope's cgroup, enters it, and becomes what stands behind --

SYSTEMD_RUN = """\
#!/bin/sh
echo "$@" >> {log}
case "$1 $2 $3 $4" in "--scope --quiet --collect --unit=glacic-run-"*.scope) ;; *) exit 9 ;; esac
mkdir -p {mount}/glacic-run-test.slice/scope && echo 0 > {mount}/glacic-run-test.slice/scope/cgroup.procs
shift 6
exec "$@"
"""


def test_with_systemd_the_command_runs_in_a_scope(run: Run, service: Any, mount: Path, tmp_path: Path) -> None:
    script = tmp_path / "systemd-run"
    script.write_text(SYSTEMD_RUN.format(log=tmp_path / "log", mount=mount))
    script.chmod(0o755)
    fake = {
        "patch": f"limits_run.SYSTEMD = limits_run.Path({str(tmp_path)!r})",
        "variables": [f"PATH={tmp_path}:{os.environ['PATH']}"],
    }
    try:
        done = run(*RATE, "--", "sh", "-c", "grep ^0:: /proc/self/cgroup; exit 7", **fake)
        assert (done.returncode, done.stdout, done.stderr) == (7, "0::/glacic-run-test.slice/scope\n", "")
        (limit,) = service.args("limits.set")
        assert limit["target"] == "glacic-run-test.slice/scope"
        assert " --description=sh -c grep ^0:: /proc/self/cgroup; exit 7 -- " in (tmp_path / "log").read_text()
        script.write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
        done = run(*RATE, "--", "true", **fake)
        assert done.returncode == 4
        assert "could not be put into its cgroup (exit 1)" in done.stderr
    finally:
        for folder in (mount / "glacic-run-test.slice" / "scope", mount / "glacic-run-test.slice"):
            ends = time.monotonic() + PATIENCE_S
            while folder.exists() and time.monotonic() < ends:
                with suppress(OSError):
                    folder.rmdir()


def test_the_cgroup_of_a_process_is_that_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("4:memory:/x\n1:name=systemd:/y\n0::/system.slice/a:b.service\n")
    assert cgroup_of(7, tmp_path) == "system.slice/a:b.service"
    (tmp_path / "7" / "cgroup").write_text("4:memory:/x\n0::/\n")
    assert cgroup_of(7, tmp_path) == ""
    assert cgroup_of(8, tmp_path) == ""
