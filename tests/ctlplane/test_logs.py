"""Log lines: JSON off a terminal, readable on one, one line each in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
from glacic.ctlplane import logs
logs.configure()
logs.logger("test").info("something happened", name="a\\nb\\x1b[2J", count=7)
"""


def test_off_a_terminal_a_line_is_json() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], stderr=subprocess.PIPE, check=True)
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["name"], said["count"], said["part"]) == (
        "something happened",
        "a\nb\x1b[2J",
        7,
        "test",
    )
    assert said["timestamp"].endswith("Z")


def test_on_a_terminal_a_line_is_for_people_and_obeys_nobody() -> None:
    ours, theirs = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", CODE], stderr=theirs, check=True)
        shown = os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"something happened" in shown
    assert b"\x1b[2J" not in shown
    assert shown.count(b"\n") == 1
