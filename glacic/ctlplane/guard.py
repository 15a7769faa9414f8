"""What brings a change on trial back when nobody is left to do it: a process that waits, looks, and acts only then.

The service itself ends a trial when its time is over. Where it was killed meanwhile, or stands still, this one puts the
confirmed configuration in force without it, as `glacic apply` does. It is started with the trial, in a session of its
own, so that neither a terminal nor the service takes it along. Under systemd it ends with the unit, whose next start
does the same.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import glacic
from glacic.ctlplane import logs
from glacic.ctlplane.audit import NAME, AuditTrail
from glacic.ctlplane.owner import as_owner
from glacic.ctlplane.revisions import Revisions, Trial
from glacic.errors import GlacicError

_log = logs.logger("guard")

LOOK_S = 0.25
GRACE_S = 5.0  # how much longer a service may take that is alive: it has a lock to wait for, and a worker to ask
AGAIN_S = 2.0  # before the next attempt, where the kernel or the disk refused
ATTEMPTS = 30

_MANAGERS = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}  # what a service manager says is for the service

# The same glacic that runs here, and nothing out of whatever folder it was started in.
_START = """
import sys
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
from glacic.ctlplane.guard import main
sys.exit(main(sys.argv[1:]))
"""


def start(state_dir: Path, trial: Trial, *, quiet: bool = False) -> None:
    """Watch over this trial from another process. quiet: it has no log; else it logs where this process does."""
    root = str(Path(glacic.__file__).parents[1])
    left_s = max(0.0, trial.until - time.time())
    words = [sys.executable, "-P", "-c", _START, root, str(state_dir), str(trial.number), f"{left_s:.3f}"]
    try:
        subprocess.Popen(  # noqa: S603 - this very program
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if quiet else None,
            env={name: value for name, value in os.environ.items() if name not in _MANAGERS},
            start_new_session=True,
        )
    except OSError as error:
        raise GlacicError(f"cannot start what would end the trial: {error.strerror}; nothing was changed") from None


def main(arguments: list[str]) -> int:
    """Wait for STATE_DIR's trial NUMBER to be over in SECONDS, and see to its end."""
    from glacic.ctlplane.offline import alone, bring_back

    state_dir, number, left_s = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    os.chdir("/")  # keeps no file system busy
    revisions = Revisions(state_dir)
    ends = time.monotonic() + left_s
    while time.monotonic() < ends or (_alive(state_dir) and time.monotonic() < ends + GRACE_S):
        if not _waits(revisions, number):
            return 0
        time.sleep(LOOK_S)
    logs.configure()
    done = False
    for _ in range(ATTEMPTS):
        try:
            with as_owner(state_dir), alone(state_dir, insist=True):
                if not _waits(revisions, number):
                    return 0
                if not done:  # once is enough: then a service may come, and only the disk was full
                    bring_back(state_dir)
                    done = True
                _written_down(revisions, state_dir)
        except GlacicError as error:
            _log.error("the change on trial cannot be taken back; trying again", error=str(error))
            time.sleep(AGAIN_S)
    return 1


def _written_down(revisions: Revisions, state_dir: Path) -> None:
    back_to = revisions.reverted().in_force
    _log.warning("nobody confirmed the change, and no service was there to take it back: done", revision=back_to)
    why = "nobody confirmed it in time, and no service was there"
    AuditTrail(state_dir / NAME).record(
        who="guard", action="revert", args={"back_to": back_to, "why": why}, outcome="ok"
    )


def _waits(revisions: Revisions, number: int) -> bool:
    """Whether this trial is still open. What cannot be read for a moment is no end of it."""
    with suppress(GlacicError):
        trial = revisions.standing().trial
        return trial is not None and trial.number == number
    return True


def _alive(state_dir: Path) -> bool:
    """Whether a service has this state directory."""
    try:
        with (state_dir / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
