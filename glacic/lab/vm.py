"""The lab, a virtual machine: one command under a stock Debian kernel, on this machine's own file system.

virtme-ng boots the kernel in QEMU (no KVM: it runs everywhere, 10 to 20 times slower, and nobody measures time in
there). The guest's root is the machine's own, read-only, with a throw-away layer over /etc, /home, /opt, /srv, /tmp,
/usr and /var: what the guest writes is gone with it, except in the folders given as `writable`. It has no network and
no disk.

    host     run() -> vng -> virtme-run -> qemu               one process group, ended by its id
    guest    virtme's init -> GUEST_SCRIPT -> the command     its exit status comes back in a file, not over a console

Programs, libraries, the interpreter, the installed packages and the working folder are mounted a second time with a
page cache in front of them (9p `cache=loose`): a look at a file there takes a twentieth of the time, and the second
start of a Python program half. That is also how a folder comes in that the guest would hide, such as one below
/var/tmp. nftables' modules are loaded at once (2 s), and not one by one as a ruleset asks for them (37 s).
"""
# ruff: noqa: S603 -- the commands are our own; nothing comes from outside

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from glacic.errors import LabError
from glacic.lab import kernel
from glacic.lab.ending import end_group, ends_cleanly, owner_is_dead
from glacic.lab.kernel import Kernel

IN_GUEST = "GLACIC_GUEST"  # environment: set in the guest, to the kernel's version
PACKAGE_FOLDER = Path(__file__).resolve().parents[1]

CPUS = 2
MEMORY = "1536M"
BOOT_S = 180  # a boot takes about 10 s, and several times that beside other work
_END_S = 5.0
_QEMU = "qemu-system-x86_64"

# command -> Debian package; virtme-ng itself comes from PyPI
NEEDS = {
    _QEMU: "qemu-system-x86",
    "udevadm": "udev",
    "modprobe": "kmod",
    "zstd": "zstd",
    "busybox": "busybox-static",
    "mount": "mount",
}

# The guest's side. $1 is the folder that both sides see; everything else is quoted into the text.
GUEST_SCRIPT = """\
#!/bin/sh
uname -r > {shared}/booted
mkdir -p /run/host /run/scratch
mount -t 9p -o version=9p2000.L,trans=virtio,access=any,msize=512000,cache=loose,ro glacic_host /run/host
for folder in {layered}; do
    mkdir -p /run/layers$folder/upper /run/layers$folder/work
    mount -t overlay -o lowerdir=/run/host$folder,upperdir=/run/layers$folder/upper,workdir=/run/layers$folder/work \
        layer $folder
done
mkdir -p /lib/modules
ln -sfn {modules} /lib/modules/$(uname -r)
modprobe -a {preloaded}
for folder in {cached}; do
    mkdir -p "$folder" 2> /dev/null
    mount --bind "/run/host$folder" "$folder" || echo "the virtual machine cannot show $folder" >&2
done
ip link set lo up
cd {cwd} || exit
env -i {environment} {in_guest}="$(uname -r)" {command} < /dev/null
echo $? > {shared}/status.new
mv {shared}/status.new {shared}/status
"""


# Below this almost every program and library lies; the guest may write there, into memory.
_LAYERED = (Path("/usr"),)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that one run needs to know, so that no step asks the environment again."""

    kernel: Kernel
    shared: Path
    writable: tuple[Path, ...]
    timeout_s: float


def needed() -> bool:
    """Whether this kernel lacks nftables' `queue` statement, found by trying it in a scratch network namespace.

    Raises LabError where nothing can be tried: without nft, or without the right to make a namespace.
    """
    kernel.require({"nft": "nftables", "unshare": "util-linux"}, "trying what this kernel can do")
    trial = "table inet t { chain c { type filter hook input priority 0; queue num 100 bypass; }; }"
    namespace = ["unshare", "--net", "--"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        raise LabError("cannot make a network namespace: run this as root")
    return subprocess.run([*namespace, "nft", trial], capture_output=True, check=False).returncode != 0


def prepare(say: kernel.Say) -> Kernel:
    """Everything that a run needs, here and whole; raises LabError that names what is missing. Returns the kernel."""
    kernel.require(NEEDS, "the virtual machine")
    _vng()
    return kernel.fetch(say)


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    writable: Sequence[Path] = (),
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    say: kernel.Say | None = None,
) -> int:
    """Boots a guest, runs `command` there as root, and returns its exit status (128 + n if signal n ended it).

    `timeout_s` counts from the start of the boot. The command has an empty standard input, the given environment on top
    of PATH, HOME and LANG, and starts in `cwd` (default: the current folder). What it prints arrives in `stdout` and
    `stderr` (default: this process's own) while it runs. `writable` folders are the machine's own, to read and write.
    Raises LabError if something is missing, the guest does not boot, dies, or does not finish in time; the guest is
    ended in every case.
    """
    out = stdout or sys.stdout.buffer
    err = stderr or sys.stderr.buffer
    booted = prepare(say or (lambda line: print_line(err, line)))
    with ends_cleanly(), shared_folder() as shared:
        plan = _Plan(booted, shared, tuple(path.resolve() for path in writable), timeout_s)
        hidden = [path for path in plan.writable if kernel.is_hidden(path)]
        if hidden:
            raise LabError(f"{hidden[0]}: the virtual machine cannot write to a folder there")
        _write_script(plan, command, (cwd or Path.cwd()).resolve(), environment or {})
        _boot(plan, out, err)
        return _status(plan)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for one run that both sides can see, gone afterwards; what killed processes left there goes as well."""
    runs = kernel.cache_folder() / "runs"
    kernel.make_folder(runs)
    for left in runs.iterdir():
        if owner_is_dead(left.name):
            shutil.rmtree(left, ignore_errors=True)  # somebody else may be at it too
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=runs) as name:
        yield Path(name)


def print_line(stream: IO[bytes], line: str) -> None:
    """One line of text to a byte stream, at once."""
    stream.write(line.encode() + b"\n")
    stream.flush()


def _vng() -> Path:
    """virtme-ng's command: beside this interpreter (a virtual environment), else on PATH."""
    beside = Path(sys.executable).parent / "vng"
    found = beside if beside.exists() else shutil.which("vng")
    if found is None:
        raise LabError("the virtual machine needs virtme-ng from PyPI: pip install virtme-ng")
    return Path(found)


def _write_script(plan: _Plan, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
    inherited = {
        "PATH": _path(),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TMPDIR": "/run/scratch",  # memory: no layers below it, and none of the machine's own temporary files
    }
    pairs = {**inherited, **environment}
    text = GUEST_SCRIPT.format(
        shared=shlex.quote(str(plan.shared)),
        layered=shlex.join(map(str, _layered(plan))),
        modules=shlex.quote(str(plan.kernel.modules)),
        preloaded=shlex.join(sorted({path.name.partition(".")[0] for path in plan.kernel.modules.rglob("nft_*.ko*")})),
        cached=shlex.join(map(str, _cached_folders(cwd, plan))),
        cwd=shlex.quote(str(cwd)),
        environment=" ".join(shlex.quote(f"{name}={value}") for name, value in pairs.items()),
        in_guest=IN_GUEST,
        command=shlex.join(command),
    )
    (plan.shared / "guest.sh").write_text(text)


def _path() -> str:
    """Where commands are found, on both sides: this virtual environment's first, an administrator's as well."""
    return f"{Path(sys.executable).parent}:{_vng().parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _layered(plan: _Plan) -> list[Path]:
    """What is mounted anew with a cache and a throw-away layer: not where that would hide a writable folder."""
    return [folder for folder in _LAYERED if not any(path.is_relative_to(folder) for path in _writable(plan))]


def _writable(plan: _Plan) -> list[Path]:
    return [plan.shared, *plan.writable]


def _cached_folders(cwd: Path, plan: _Plan) -> list[Path]:
    """What else is worth a page cache, or hidden from the guest: outermost folders only, none that holds a writable
    one, none that is layered.

    A file system root is never among them: mounting it over itself would cover the guest's own /proc and /run.
    """
    wanted = [Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix), Path(sys.prefix), PACKAGE_FOLDER, cwd]
    wanted = [folder for folder in wanted if folder not in (Path("/"), *_LAYERED)]  # the system's own interpreter's
    resolved = sorted({folder.resolve() for folder in wanted})
    layered = _layered(plan)
    usable = [
        folder
        for folder in resolved
        if not any(path.is_relative_to(folder) for path in _writable(plan))
        and not any(folder.is_relative_to(other) for other in layered)
    ]
    return [
        folder for folder in usable if not any(folder != other and folder.is_relative_to(other) for other in usable)
    ]


def _boot(plan: _Plan, out: IO[bytes], err: IO[bytes]) -> None:
    """Starts the guest and passes on what it prints until it is gone; ends it at the latest when the time is up."""
    process = subprocess.Popen(
        _vng_command(plan),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": _path(), "TMPDIR": str(plan.shared)},
        start_new_session=True,
    )
    started = time.monotonic()
    try:
        assert process.stdout is not None  # noqa: S101 -- both are pipes: see above
        assert process.stderr is not None  # noqa: S101
        with process.stdout, process.stderr:
            for stream, data in _chunks({process.stdout: out, process.stderr: err}, lambda: _check_time(plan, started)):
                stream.write(data)
                stream.flush()
        process.wait()
    finally:
        end_group(process, patience_s=_END_S)


def _vng_command(plan: _Plan) -> list[str]:
    command = [str(_vng()), "--force-9p", "--disable-kvm", "--cpus", str(CPUS), "--memory", MEMORY, "--user", "root"]
    for folder in (plan.shared, *plan.writable):
        command += ["--rwdir", str(folder)]
    # All of the machine once more, read-only, under a name that the guest's script mounts with a cache.
    export = "-fsdev local,id=glacic,path=/,security_model=none,readonly=on,multidevs=remap"
    command.append(f"--qemu-opts={export} -device virtio-9p-pci,fsdev=glacic,mount_tag=glacic_host")
    command += ["--qemu", str(_watched_qemu(plan))]
    return [*command, "-r", str(plan.kernel.image), "--", "sh", str(plan.shared / "guest.sh")]


def _watched_qemu(plan: _Plan) -> Path:
    """A qemu that is ended when this process is gone, even if that was killed and could end nothing itself."""
    wrapper = plan.shared / _QEMU
    watch = f"while kill -0 {os.getpid()} && kill -0 $$; do sleep 2; done; kill -KILL $$"
    wrapper.write_text(f'#!/bin/sh\n( {watch} ) < /dev/null > /dev/null 2>&1 &\nexec {_QEMU} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def _chunks(streams: dict[IO[bytes], IO[bytes]], check: Callable[[], None]) -> Iterator[tuple[IO[bytes], bytes]]:
    """(destination, data) as it arrives, until every source has ended; `check` is called at least twice a second."""
    with selectors.DefaultSelector() as selector:
        for source, destination in streams.items():
            selector.register(source, selectors.EVENT_READ, destination)
        while selector.get_map():
            for key, _ in selector.select(0.5):
                data = os.read(key.fd, 65536)
                if data:
                    yield key.data, data
                else:
                    selector.unregister(key.fileobj)
            check()


def _check_time(plan: _Plan, started: float) -> None:
    passed_s = time.monotonic() - started
    if passed_s > plan.timeout_s:
        raise LabError(f"the virtual machine was ended: its command did not finish within {plan.timeout_s:.0f} s")
    if passed_s > BOOT_S and not (plan.shared / "booted").exists():
        raise LabError(f"the virtual machine did not boot within {BOOT_S} s")


def _status(plan: _Plan) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((plan.shared / "status").read_text())
    name = f"the virtual machine (Linux {plan.kernel.version})"
    if (plan.shared / "booted").exists():
        raise LabError(
            f"{name} died before its command ended: its kernel panicked, or ran out of its {MEMORY} of memory"
        )
    raise LabError(f"{name} did not boot; is there {MEMORY} of memory for it?")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m glacic.lab.vm [--timeout S] [COMMAND ...]`: runs a command in the guest; without one, only fetches."""
    parser = argparse.ArgumentParser(
        prog="python -m glacic.lab.vm", description="A stock Debian kernel on this machine."
    )
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for boot and command together")
    parser.add_argument("command", nargs="*", help="what to run in the virtual machine")
    options = parser.parse_args(arguments)
    try:
        if options.command:
            return run(options.command, timeout_s=options.timeout)
        fetched = prepare(lambda line: print_line(sys.stderr.buffer, line))
    except LabError as error:
        print_line(sys.stderr.buffer, str(error))
        return error.exit_code
    print_line(sys.stdout.buffer, f"Linux {fetched.version} is ready in {fetched.image.parents[1]}")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
