"""The manual page says what the command line says, in words that no formatter takes for its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glacic.ctlplane.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    command = [sys.executable, "-P", str(ROOT / "tools" / "manpage.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_section(page: str, command: str) -> None:
    assert f"\n.SS glacic {command}" in page


def test_subcommands_and_options_are_there(page: str) -> None:
    for words in (".SS glacic flows approve", r"\-\-no\-apply", r"\-\-state\-dir DIR", ".SH EXIT STATUS"):
        assert words in page


def test_every_request_is_one_that_man_knows(page: str) -> None:
    known = {".TH", ".SH", ".SS", ".TP", ".B", ".I"}
    assert {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))} <= known
