"""What the engine process cannot do any more once it is confined, tried from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import glacic

# Each attempt is tried in the confined process; its answer is what became of it: "done", or the error's name.
ATTEMPTS = """
import ctypes, errno, json, os, resource, signal, socket, sqlite3, sys, threading
from pathlib import Path
from glacic.ctlplane import sandbox
from glacic.errors import GlacicError
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store

state, elsewhere, parent, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
confined = sandbox.enter(state)

def status(field):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(field + ":"))

def database():
    connection = sqlite3.connect(state / "flows.db")
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table t (n)")
    connection.executemany("insert into t values (?)", ((n,) for n in range(20_000)))
    connection.execute("create index i on t (n)")
    connection.commit()
    connection.execute("vacuum")
    connection.close()

def large_batch():
    # So much in one transaction that SQLite would keep part of it in a temporary file, which it could not make.
    written = [
        Written(FlowKey("p", n.to_bytes(6, "big"), 17, n % 65536), FlowState.ALLOWED, 1, 1, 0, "tofu")
        for n in range(200_000)
    ]
    with Store.open(state / "large.db") as store:
        store.write(Batch(added=written))
        assert store.count() == len(written)

def set_aside():
    (state / "damaged").mkdir()
    (state / "flows.db").rename(state / "damaged" / "flows.db")
    (state / "damaged" / "flows.db").unlink()
    (state / "damaged").rmdir()

def in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(outcome(lambda: (elsewhere / "new").write_text(""))))
    thread.start()
    thread.join()
    if found != ["EACCES"]:
        raise AssertionError(found)

def netlink():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as link:
        link.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)  # SO_RCVBUFFORCE takes CAP_NET_ADMIN

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except GlacicError as error:
        return str(error)
    return "done"

def libnftables():
    from glacic.firewall.nft import Libnftables
    Libnftables()

answers = {name: outcome(attempt) for name, attempt in {
    "use the database": database,
    "write a large batch": large_batch,
    "set it aside": set_aside,
    "import": lambda: __import__("netfilterqueue") and __import__("hcl2"),
    "load libnftables": libnftables,
    "read the kernel's own figures": lambda: Path("/proc/thread-self/net/dev").read_text(),
    "use netlink": netlink,
    "read a file elsewhere": lambda: (elsewhere / "secret").read_text(),
    "list a folder elsewhere": lambda: os.listdir(elsewhere),
    "read passwords": lambda: open("/etc/shadow").read(),
    "write elsewhere": lambda: (elsewhere / "new").write_text(""),
    "write to a temporary folder": lambda: Path("/tmp/glacic-sandbox").write_text(""),
    "write over a module": lambda: open(os.__file__, "r+b"),
    "cut a file elsewhere": lambda: os.truncate(elsewhere / "secret", 0),
    "take a file elsewhere away": lambda: (elsewhere / "secret").unlink(),
    "make a socket file": lambda: socket.socket(socket.AF_UNIX).bind(str(state / "socket")),
    "start a program": lambda: os.execv("/bin/true", ["true"]),
    "start a program of its own": lambda: (
        (state / "run").write_text("#!/bin/sh\\n"), (state / "run").chmod(0o755), os.execv(state / "run", ["run"])
    ),
    "connect by TCP": lambda: socket.create_connection(("127.0.0.1", port), 5),
    "listen by TCP": lambda: socket.socket().bind(("127.0.0.1", 0)),
    "signal its parent": lambda: os.kill(parent, signal.SIGCONT),
    "leave in a thread": in_a_thread,
}.items()}
answers |= {name: status(name) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs")}
answers["core"] = resource.getrlimit(resource.RLIMIT_CORE)
answers["landlock"] = confined.landlock
print(json.dumps(answers))
"""

NET_ADMIN = 1 << 12
DAC_OVERRIDE = 1 << 1


def tried(state: Path, elsewhere: Path, port: int = 9) -> dict[str, object]:
    """What a confined process says it could do."""
    (elsewhere / "secret").write_text("secret")
    command = [sys.executable, "-P", "-c", ATTEMPTS, str(state), str(elsewhere), str(os.getpid()), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(glacic.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    answers: dict[str, object] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return tried(tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("elsewhere"))


def test_this_kernel_can_confine_files(answers: dict[str, object]) -> None:
    assert answers["landlock"], "without Landlock nothing below says anything: boot a kernel that has it"


@pytest.mark.parametrize(
    "what",
    [
        "use the database",
        "write a large batch",
        "set it aside",
        "import",
        "load libnftables",
        "read the kernel's own figures",
        "use netlink",
    ],
)
def test_it_can_still_do_its_work(answers: dict[str, object], what: str) -> None:
    assert answers[what] == "done"


@pytest.mark.parametrize(
    "what",
    [
        "read a file elsewhere",
        "list a folder elsewhere",
        "read passwords",
        "write elsewhere",
        "write to a temporary folder",
        "write over a module",
        "take a file elsewhere away",
        "make a socket file",
        "start a program",
        "start a program of its own",
    ],
)
def test_files_and_programs_elsewhere_are_out_of_reach(answers: dict[str, object], what: str) -> None:
    assert answers[what] == "EACCES"


def test_a_thread_is_confined_as_well(answers: dict[str, object]) -> None:
    assert answers["leave in a thread"] == "done"


@pytest.mark.parametrize(
    ("what", "since", "before", "after"),
    [
        ("cut a file elsewhere", 3, "done", "EACCES"),
        ("connect by TCP", 4, "ECONNREFUSED", "EACCES"),
        ("listen by TCP", 4, "done", "EACCES"),
        ("signal its parent", 6, "done", "EPERM"),
    ],
)
def test_what_only_newer_kernels_can_restrict_is_restricted_there(
    answers: dict[str, object], what: str, since: int, before: str, after: str
) -> None:
    assert answers[what] == (after if int(str(answers["landlock"])) >= since else before)


def test_one_right_is_left_and_no_more_can_come(answers: dict[str, object]) -> None:
    sets = {name: int(str(answers[name]), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}
    assert sets == {"CapEff": NET_ADMIN, "CapPrm": NET_ADMIN, "CapInh": 0, "CapBnd": NET_ADMIN, "CapAmb": 0}
    assert answers["NoNewPrivs"] == "1"


def test_it_leaves_no_core(answers: dict[str, object]) -> None:
    assert answers["core"] == [0, 0]


def test_root_can_work_in_the_folder_of_the_services_user(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    for folder in (state, elsewhere):
        folder.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    answers = tried(state, elsewhere)
    assert answers["use the database"] == "done"
    assert answers["read a file elsewhere"] == answers["write elsewhere"] == "EACCES"
    assert int(str(answers["CapEff"]), 16) == NET_ADMIN | DAC_OVERRIDE


def test_where_there_is_no_landlock_it_says_so_and_goes_on() -> None:
    code = (
        "from glacic.ctlplane import sandbox\n"
        "sandbox._CREATE_RULESET = 100_000\n"  # no such system call
        "print(sandbox.enter(None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "landlock=0" in done.stdout
    assert "not implemented" in done.stdout
