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
    "firewall": {"config"},
    "learning": {"config"},
    "ctlplane": {"learning", "firewall", "config"},
    "lab": {"ctlplane", "learning", "firewall", "config"},
}


def imports_of(path: Path) -> set[str]:
    """The packages of ours that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("glacic.")}
    return found & set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for path in (ROOT / "glacic" / package).rglob("*.py"):
        if path.parent.name == "cli" and path.name == "lab.py":
            continue  # the command that starts the lab is the one door to it
        assert imports_of(path) <= PACKAGES[package] | {package}, path


def test_only_the_syntax_step_imports_hcl() -> None:
    for path in (ROOT / "glacic").rglob("*.py"):
        if path.name != "syntax.py":
            text = path.read_text()
            assert "import hcl2" not in text, path
            assert "from lark" not in text, path


@pytest.mark.parametrize("command", ["stats", "status", "flows", "learn", "reload"])
def test_a_command_that_talks_to_the_socket_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from glacic.ctlplane.cli import main\n"
        f"main(['{command}', '--socket', '/nonexistent/socket'] + {['list'] if command == 'flows' else ['status'] if command == 'learn' else []!r})\n"
        "heavy = {'hcl2', 'lark', 'sqlalchemy', 'scapy', 'structlog', 'netfilterqueue', 'asyncio', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def test_the_table_of_modules_is_true() -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "modules.py"), "--check"], check=True)
