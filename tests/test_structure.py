"""The shape of the tree: imports point one way, light commands stay light, and the table of modules is true."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "config": set(),
    "native": set(),
    "firewall": {"config"},
    "learning": {"config", "native"},
    "shaping": {"firewall", "config"},
    "ctlplane": {"shaping", "learning", "firewall", "config", "native"},
    "lab": {"ctlplane", "shaping", "learning", "firewall", "config"},
}


HEAVY = {"hcl2", "lark", "sqlalchemy", "scapy", "structlog", "netfilterqueue", "asyncio", "rich", "pyroute2"}


def imported(path: Path) -> set[str]:
    """The full names of what a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    """The packages of ours that a module imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("glacic.")} & set(PACKAGES)


def top_level_imports(path: Path) -> set[str]:
    """The first names of what a module imports."""
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for path in (ROOT / "glacic" / package).rglob("*.py"):
        if path.parent.name == "cli" and path.name == "lab.py":
            continue  # the command that starts the lab is the one door to it
        assert imports_of(path) <= PACKAGES[package] | {package}, path


def test_only_the_syntax_step_imports_hcl() -> None:
    for path in (ROOT / "glacic").rglob("*.py"):
        if path.name != "syntax.py":
            assert not {"hcl2", "lark"} & top_level_imports(path), path


@pytest.mark.parametrize(
    "command", ["stats", "status", "flows list", "learn status", "reload", "limits list", "limits watch"]
)
def test_a_command_that_talks_to_the_socket_imports_nothing_heavy(command: str) -> None:
    words = [*command.split(), "--socket", "/nonexistent/socket"]
    code = (
        "import sys\n"
        "from glacic.ctlplane.cli import main\n"
        f"assert main({words!r}) == 3\n"
        f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def test_the_table_of_modules_is_true() -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "modules.py"), "--check"], check=True)
