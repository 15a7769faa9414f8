"""Log lines: JSON off a terminal, readable on one, one line each in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from glacic.ctlplane import logs

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
        "a\\nb\\x1b[2J",
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


FAULTS = """
import asyncio, threading, warnings
from glacic.ctlplane import logs
logs.configure()

def fail():
    raise RuntimeError("\\x1b[2J\\u202e" + "x" * 100_000)

async def forgotten():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)

try:
    fail()
except RuntimeError:
    logs.logger("test").exception("caught")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
asyncio.run(forgotten())
warnings.warn("\\x1b[2J")
fail()
"""


def test_faults_and_what_libraries_say_are_lines_of_json_too() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], stderr=subprocess.PIPE)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["part"] for line in said] == ["test", "python", "asyncio", "py.warnings", "python"]
    assert sum("RuntimeError" in line.get("exception", "") for line in said) == 4
    assert all(len(line) < 10_000 for line in done.stderr.splitlines())
    assert all(value.replace("\n", "").isprintable() for line in said for value in line.values())
    assert done.returncode == 1


def test_a_value_is_harmless_however_it_is_wrapped() -> None:
    deep: object = "\x1b"
    for _ in range(100):
        deep = [deep]
    event = {
        "a": "\x9b" * 100_000,
        "\x1b": {"b\n": ["\u202e"] * 100},
        "c": Path("/\u2066"),
        "d": deep,
        "e": 1.5,
        "f": None,
    }
    shown = json.dumps(logs.harmless(None, "info", dict(event)), ensure_ascii=False)
    assert shown.isprintable()
    assert len(shown) < 10_000
    assert '"e": 1.5, "f": null' in shown
