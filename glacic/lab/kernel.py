"""The lab, a kernel to boot: a stock Debian kernel with its modules, unpacked in a cache folder and never installed.

The kernel of the machine may lack CONFIG_NFT_QUEUE (nftables' `queue`); Debian's has it. The image package that
`linux-image-amd64` depends on is fetched by apt (which checks its signature), unpacked with dpkg-deb and indexed with
depmod. It is laid out as `CACHE/kernel/{boot,lib/modules}`, where virtme-ng finds the modules beside the image by
itself. What is in the cache is checked whole before each use, and fetched anew if it is not. Two processes that come
at the same time wait for each other. Nothing outside the cache folder is written.
"""
# ruff: noqa: S603, S607 -- fixed commands of Debian's own, found on PATH as an administrator's shell finds them

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glacic.errors import LabError

PACKAGE = "linux-image-amd64"
STAMP = "complete.json"

# virtme-ng lays a fresh file system over these in the guest before it loads the first module.
HIDDEN_IN_GUEST = (
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/var/run",
    *(f"/var/{name}" for name in ("cache", "lib/apt", "log", "tmp")),
)

# What the guest cannot do without: its root file system, and the statement that all this is about.
NEEDED_MODULES = ("9p", "9pnet_virtio", "overlay", "nft_queue", "nfnetlink_queue", "nf_conntrack", "veth", "bridge")

# command -> the Debian package that has it
FETCH_NEEDS = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "depmod": "kmod"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A bootable kernel: `version` as `uname -r` prints it, the compressed image, and the folder of its modules."""

    version: str
    image: Path
    modules: Path


def cache_folder() -> Path:
    """Where the kernel is kept, for all clones of one user: ${XDG_CACHE_HOME:-~/.cache}/glacic/vm.

    The guest must see it, so a folder that it hides is refused here and not by a kernel that finds no module.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = ((Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "glacic" / "vm").resolve()
    if is_hidden(folder):
        raise LabError(f"{folder}: the virtual machine cannot see a folder there; set XDG_CACHE_HOME to another place")
    return folder


def is_hidden(path: Path) -> bool:
    """Whether the guest has a file system of its own where the machine has this path."""
    return any(path.is_relative_to(folder) for folder in HIDDEN_IN_GUEST)


def fetch(say: Say) -> Kernel:
    """The kernel from the cache; if it is not there, or not whole, first from Debian. Raises LabError.

    `say` takes one line about what takes long.
    """
    folder = cache_folder()
    with alone(folder):
        target = folder / "kernel"
        whole = _examine(target)
        if whole is not None:
            return whole
        if target.exists():
            say(f"{target} is damaged: it is fetched anew")
            shutil.rmtree(target)
        _build(folder, target, say)
        made = _examine(target)
        if made is None:
            raise LabError(f"{target}: written just now and already damaged; is the disk full?")
        return made


def make_folder(folder: Path) -> None:
    """Makes a folder in the cache, with its parents, if it is not there. Raises LabError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another place") from error


def missing(needs: dict[str, str]) -> list[str]:
    """The Debian packages for those commands in `needs` that this machine lacks, each once, in order."""
    return list(dict.fromkeys(package for command, package in needs.items() if shutil.which(command) is None))


def require(needs: dict[str, str], purpose: str) -> None:
    """Raises LabError that names every Debian package missing for `purpose`."""
    packages = missing(needs)
    if packages:
        raise LabError(f"{purpose} needs {', '.join(packages)}: apt-get install {' '.join(packages)}")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder in the cache; it goes with the process, however that ends."""
    make_folder(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(folder: Path, target: Path, say: Say) -> None:
    """Fetches, unpacks and indexes beside the target, and puts it in place by one rename."""
    if platform.machine() != "x86_64":
        raise LabError(f"the virtual machine is an x86_64 one, and this machine is {platform.machine()}")
    require(FETCH_NEEDS, "fetching a Debian kernel")
    for left in folder.glob("incoming-*"):  # of a process that was killed: nobody else is in here now
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder))
    try:
        package = _download(work, say)
        archive = next(work.glob("*.deb"))
        command(["dpkg-deb", "-x", str(archive), str(work)])
        archive.unlink()
        if not (work / "lib").exists():  # Debian 13 has the modules below /usr/lib
            (work / "lib").symlink_to("usr/lib")
        version = package.removeprefix("linux-image-")
        command(["depmod", "-b", str(work), version])
        _check_modules(work / "lib" / "modules" / version)
        stamp = {"version": version, "image": _digest(_image(work, version)), "modules": _count(work, version)}
        (work / STAMP).write_text(json.dumps(stamp) + "\n")
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path, say: Say) -> str:
    """Fetches the image package into `work`; returns its name. A missing or old package list is renewed once."""
    try:
        return _download_as_listed(work, say)
    except LabError:
        if os.geteuid() != 0:
            raise
    say("renewing apt's package lists")
    command(["apt-get", "-qq", "update"])
    return _download_as_listed(work, say)


def _download_as_listed(work: Path, say: Say) -> str:
    package = _image_package()
    say(f"fetching {package} for the virtual machine (about 70 MB, kept in {work.parent})")
    command(["apt-get", "-qq", "download", package], cwd=work)
    return package


def _image_package() -> str:
    """The real package behind Debian's meta package, such as linux-image-6.1.0-41-amd64."""
    shown = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=False)
    names = [line.split()[-1] for line in shown.stdout.splitlines() if line.strip().startswith("Depends:")]
    for name in names:
        if name.startswith("linux-image-"):
            return name
    raise LabError(f"apt knows no package {PACKAGE} (Debian's kernel for x86_64): run apt-get update")


def _check_modules(folder: Path) -> None:
    """depmod's index must know what the guest needs; a module may also be built in."""
    known = "".join(
        (folder / name).read_text() for name in ("modules.dep", "modules.builtin") if (folder / name).exists()
    )
    lacking = [name for name in NEEDED_MODULES if f"/{name}.ko" not in known]
    if lacking:
        raise LabError(f"{folder.name}: this kernel lacks {', '.join(lacking)}")


def _examine(target: Path) -> Kernel | None:
    """The kernel in `target`, if all that was put there still is."""
    try:
        stamp = json.loads((target / STAMP).read_text())
        version = str(stamp["version"])
        image = _image(target, version)
        whole = _digest(image) == stamp["image"] and _count(target, version) == stamp["modules"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Kernel(version, image, target / "lib" / "modules" / version) if whole else None


def _image(root: Path, version: str) -> Path:
    return root / "boot" / f"vmlinuz-{version}"


def _digest(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


def _count(root: Path, version: str) -> int:
    """How many files there are beside the image: enough to see that a folder was half removed."""
    return sum(len(files) for _, _, files in os.walk(root / "lib" / "modules" / version))


def command(words: list[str], cwd: Path | None = None) -> None:
    """Runs a command without input. Raises LabError with what it said, if it fails."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise LabError(f"{' '.join(words)}: {said}")
