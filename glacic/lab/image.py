"""The lab, a disk to boot: a small Debian with systemd, in a file of its own, kept in the user's cache folder.

mmdebstrap makes the root file system from the machine's own release and apt sources, mke2fs makes the disk image of
it, and the kernel and the initial ramdisk that Debian's kernel package made in there are put beside it. The guest has
no network: everything that a test of the package needs to be installed there is in PACKAGES. It is made once for each
version of this recipe. Refuses to put anything of Glacic into it: a test brings that.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from glacic.errors import LabError
from glacic.lab.kernel import Say, alone, cache_folder, command, require

# command -> the Debian package that has it
NEEDS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}

PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "libpam-systemd"),
    *("linux-image-amd64", "initramfs-tools", "zstd", "kmod"),
    *("iproute2", "nftables", "procps"),
    *("python3", "libnftables1", "libnetfilter-queue1"),  # what the package depends on: the guest cannot fetch it
)
NOT_UNPACKED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*")
SIZE = "2G"  # sparse; a third of it is used
AGENT = "/usr/local/sbin/guest-agent"
SHARED = "/shared"  # in the guest: the folder that both sides see

# Runs in the guest: what the host puts into the shared folder as todo-N, one after the other. A list that ends the
# guest has no status: it is renamed before it runs, so that it does not run again.
_AGENT_SCRIPT = f"""\
#!/bin/sh
modprobe 9pnet_virtio
mkdir -p {SHARED}
mount -t 9p -o version=9p2000.L,trans=virtio,access=any,msize=512000 shared {SHARED} || exit
cd {SHARED} || exit
while state=$(systemctl is-system-running); [ "$state" = starting ] || [ "$state" = initializing ]; do sleep 0.3; done
echo "$state" > booted.new
mv booted.new "booted-$(cat /proc/sys/kernel/random/boot_id)"
while :; do
    for todo in todo-*; do
        [ -e "$todo" ] || continue
        number=${{todo#todo-}}
        mv "$todo" "doing-$number"
        cd /root
        sh -u "{SHARED}/doing-$number" > "{SHARED}/output-$number" 2>&1 < /dev/null
        echo $? > "{SHARED}/status.new"
        cd {SHARED}
        mv status.new "status-$number"
    done
    sleep 0.2
done
"""
_AGENT_UNIT = f"""\
[Unit]
Description=Runs what the host asks for
[Service]
Type=simple
ExecStart={AGENT}
Restart=no
"""
# In front of the packages: the initial ramdisk is made when the kernel is installed, once.
_BEFORE = """\
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
printf 'MODULES=list\\nCOMPRESS=zstd\\nRESUME=none\\n' > "$1/etc/initramfs-tools/conf.d/lab"
cat > "$1/etc/initramfs-tools/hooks/lab" << 'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_rng ext4
END
chmod 755 "$1/etc/initramfs-tools/hooks/lab"
"""
# Behind them. Emulation is slow: systemd's own limits of 90 s are for machines that are not.
_AFTER = f"""\
set -e
echo lab > "$1/etc/hostname"
echo 0123456789abcdef0123456789abcdef > "$1/etc/machine-id"
passwd --root "$1" --delete root > /dev/null
mkdir -p "$1/etc/systemd/system.conf.d" "$1/etc/systemd/journald.conf.d" "$1{Path(AGENT).parent}"
cat > "$1/etc/systemd/system.conf.d/lab.conf" << 'END'
[Manager]
DefaultTimeoutStartSec=300s
DefaultTimeoutStopSec=300s
END
printf '[Journal]\\nStorage=persistent\\n' > "$1/etc/systemd/journald.conf.d/lab.conf"
cat > "$1{AGENT}" << 'END'
{_AGENT_SCRIPT}END
chmod 755 "$1{AGENT}"
cat > "$1/etc/systemd/system/guest-agent.service" << 'END'
{_AGENT_UNIT}END
mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
ln -s ../guest-agent.service "$1/etc/systemd/system/multi-user.target.wants/guest-agent.service"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \\
        systemd-timesyncd.service e2scrub_reap.service getty@.service serial-getty@.service; do
    ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What qemu boots directly: the disk is a raw image with one ext4 file system and no partitions."""

    disk: Path
    kernel: Path
    initrd: Path


def fetch(say: Say) -> Image:
    """The image from the cache; if it is not there, made now. Raises LabError.

    `say` takes one line about what takes long.
    """
    release, sources = _release(), _sources()
    recipe = "\0".join([*PACKAGES, *NOT_UNPACKED, SIZE, _BEFORE, _AFTER, release])
    folder = cache_folder() / "systems"
    target = folder / f"{release}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with alone(folder):
        if not target.exists():
            _build(folder, target, release, sources, say)
    return Image(target / "disk", target / "kernel", target / "initrd")


def _release() -> str:
    """The code name of the machine's own Debian, such as bookworm."""
    values = platform.freedesktop_os_release()
    if values.get("ID") != "debian" or platform.machine() != "x86_64":
        raise LabError("a Debian guest is made from the machine's own Debian for x86_64, and this is none")
    return values["VERSION_CODENAME"]


def _sources() -> list[str]:
    """Where the machine's own apt gets Debian from: the files that Debian's installer writes."""
    usual = [Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")]
    found = [str(path) for path in usual if path.exists() and path.read_text().strip()]
    if not found:
        raise LabError(f"no apt sources in {' or '.join(map(str, usual))}: a guest is made from them")
    return found


def _build(folder: Path, target: Path, release: str, sources: list[str], say: Say) -> None:
    """Makes everything beside the target, and puts it in place by one rename; what older recipes made goes."""
    require(NEEDS, "making a Debian guest")
    if os.geteuid() != 0:
        raise LabError("making a Debian guest takes root")
    say(f"making a Debian {release} with systemd for the virtual machine (a minute or two, kept in {folder})")
    for left in folder.iterdir():
        if left.name != "lock":
            shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder))
    try:
        root = work / "root"
        hooks = [f"--essential-hook={_BEFORE}", f"--customize-hook={_AFTER}"]
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_UNPACKED]
        options = ["--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}", "--quiet"]
        command(["mmdebstrap", *options, *excluded, *hooks, release, str(root), *sources])
        shutil.copy(_only(root / "boot", "vmlinuz-*"), work / "kernel")
        shutil.copy(_only(root / "boot", "initrd.img-*"), work / "initrd")
        command(["mke2fs", "-q", "-t", "ext4", "-L", "lab", "-d", str(root), str(work / "disk"), SIZE])
        shutil.rmtree(root)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise LabError(f"{folder} has {len(found)} files named {pattern}, and one is needed")
    return found[0]
