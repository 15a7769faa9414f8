"""Root works in the service's folder as the service: tried in processes of its own, whose rights may be spoiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

import glacic
from glacic.ctlplane.owner import as_owner, refuse_foreign
from glacic.errors import GlacicError

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The service's folder, which is not root's; its way there is open to everybody."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    os.chown(made, NOBODY, NOBODY)
    return made


def working(state: Path, code: str, *, before: str = "") -> subprocess.CompletedProcess[str]:
    text = f"from pathlib import Path\nfrom glacic.ctlplane.owner import as_owner\nstate = Path({str(state)!r})\n"
    text += f"{before}\nwith as_owner(state):\n{indent(code, '    ')}"
    environment = {**os.environ, "PYTHONPATH": str(Path(glacic.__file__).parents[1])}
    return subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True, env=environment)


def test_what_it_writes_there_is_the_services(state: Path) -> None:
    done = working(state, "(state / 'history').mkdir()\n(state / 'history' / '1').write_text('x')")
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_uid for path in state.rglob("*")} == {NOBODY}


def test_a_database_made_there_is_the_services(state: Path) -> None:
    code = "from glacic.learning.store import Store\nwith Store.open(state / 'flows.db') as store: store.numbers()"
    done = working(state, code)
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_uid for path in state.rglob("*")} == {NOBODY}


def test_a_link_that_somebody_laid_there_leads_nowhere(state: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (state / "lock").symlink_to(secret)
    done = working(state, "(state / 'lock').open('w')")
    assert "PermissionError" in done.stderr
    assert secret.read_text() == "root's"


def test_it_still_changes_the_kernels_tables(state: Path) -> None:
    namespace = "import ctypes\nassert ctypes.CDLL(None).unshare(0x40000000) == 0"  # CLONE_NEWNET
    code = (
        "from glacic.firewall.nft import Libnftables\n"
        "Libnftables().run('table inet probe\\ndelete table inet probe')\nprint('loaded')"
    )
    done = working(state, code, before=namespace)
    assert done.stdout == "loaded\n", done.stderr


def test_it_still_reads_what_only_root_may_read(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "private.hcl"
    config.write_text("# an administrator's own\n")
    config.chmod(0o600)
    done = working(state, f"print(Path({str(config)!r}).read_text())")
    assert "administrator" in done.stdout, done.stderr


@pytest.mark.parametrize("folder", ["", "missing"])
def test_in_its_own_folder_root_stays_root(tmp_path: Path, folder: str) -> None:
    with as_owner(tmp_path / folder):
        (tmp_path / "file").touch()
    assert (tmp_path / "file").stat().st_uid == 0


def test_behind_the_block_root_is_root_again(state: Path) -> None:
    rights = Path("/proc/thread-self/status").read_text()
    with pytest.raises(ZeroDivisionError), as_owner(state):
        raise ZeroDivisionError
    now = Path("/proc/thread-self/status").read_text()
    for name in ("Uid", "Gid", "CapEff", "CapPrm"):
        assert [line for line in rights.splitlines() if line.startswith(name)] == [
            line for line in now.splitlines() if line.startswith(name)
        ]


def test_a_service_of_roots_is_refused_in_another_users_folder(state: Path, tmp_path: Path) -> None:
    refuse_foreign(tmp_path)
    with pytest.raises(GlacicError, match=r"belongs to user nobody.*systemctl start glacic"):
        refuse_foreign(state)
