"""The journal: a line for every change that people care about, never a packet that waits for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import journal as module
from glacic.ctlplane import logs
from glacic.ctlplane.journal import Journal
from glacic.learning.flow import FlowKey, FlowState, Transition, Why

KEY = FlowKey("lan_wan", bytes.fromhex("020000000010"), 6, 443)


class Lines:
    """A logger that keeps what it is given, and can be made to hang."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.free = threading.Event()
        self.free.set()

    def info(self, event: str, **fields: Any) -> None:
        self.free.wait(10)
        self.lines.append((event, fields))

    warning = info


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    kept = Lines()
    monkeypatch.setattr(module, "_log", kept)
    monkeypatch.setattr(logs, "_json", None)  # whoever has configured it in this process
    return kept


def change(before: FlowState | None, after: FlowState | None, who: str = "tofu") -> Transition:
    return Transition(key=KEY, before=before, after=after, at_ns=0, who=who, why="learned on first use")


def test_a_change_is_one_line_with_who_and_why(lines: Lines) -> None:
    journal = Journal()
    journal.start()
    journal.put(change(None, FlowState.ALLOWED))
    journal.put(change(FlowState.ALLOWED, None, "user root"))
    journal.stop(10)
    (first, fields), (second, _) = lines.lines
    assert (first, second) == ("flow allowed", "flow forgotten")
    assert (fields["policy"], fields["source"], fields["protocol"], fields["port"]) == (
        "lan_wan",
        "02:00:00:00:00:10",
        "tcp",
        443,
    )
    assert fields["who"] == "tofu"


def test_more_lines_than_can_be_written_are_counted_and_nobody_waits(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    lines.free.clear()
    journal = Journal()
    journal.start()
    for _ in range(100):
        journal.put(change(None, FlowState.PENDING, "traffic"))
    lines.free.set()
    journal.stop(10)
    told = sum(1 for event, _ in lines.lines if event == "flow pending")
    left_out = sum(fields["lines_left_out"] for _, fields in lines.lines if "lines_left_out" in fields)
    assert told + left_out == 100
    assert left_out > 0


def test_a_flood_of_new_flows_is_a_few_lines_and_a_count(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACES", {"traffic": (0.001, 50.0), "tofu": (0.001, 60.0), "expiry": (0.001, 70.0)})
    journal = Journal()
    journal.start()
    for _ in range(20_000):
        journal.put(change(None, FlowState.PENDING, "traffic"))
        journal.put(change(None, FlowState.ALLOWED, "tofu"))
        journal.put(change(FlowState.PENDING, None, "expiry"))
    for _ in range(300):
        journal.put(change(FlowState.PENDING, FlowState.DENIED, "user root"))
    journal.stop(10)
    said = [event for event, _ in lines.lines]
    assert [said.count(f"flow {what}") for what in ("pending", "allowed", "forgotten", "denied")] == [50, 60, 70, 300]
    left_out = [fields["lines_left_out"] for _, fields in lines.lines if "lines_left_out" in fields]
    assert sum(left_out) == 60_000 - 50 - 60 - 70
    assert len(left_out) <= 3  # the first, one in TELL_S, the last


def test_what_was_left_out_is_said_although_nothing_follows(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACES", {"traffic": (0.001, 1.0)})
    monkeypatch.setattr(module, "TELL_S", 0.05)
    journal = Journal()
    journal.put(change(None, FlowState.PENDING, "traffic"))
    journal.start()
    while not lines.lines:
        time.sleep(0.01)
    journal.put(change(None, FlowState.PENDING, "traffic"))
    while len(lines.lines) < 2:
        time.sleep(0.01)
    assert lines.lines[1][1] == {"lines_left_out": 1}
    journal.stop(10)


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
STATES = st.sampled_from([None, *FlowState])
ADDRESSES = st.sampled_from([4, 6, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(
    key=st.builds(
        FlowKey,
        WORDS,
        ADDRESSES,
        st.integers(0, 255),
        st.integers(0, 65535),
        ADDRESSES.filter(lambda a: len(a) != 6) | st.just(b""),
    ),
    before=STATES,
    after=STATES,
    who=WORDS,
    why=st.sampled_from(Why) | WORDS,
)
def test_a_line_of_json_is_the_loggers_to_the_letter(
    key: FlowKey, before: FlowState | None, after: FlowState | None, who: str, why: str
) -> None:
    transition = Transition(key=key, before=before, after=after, at_ns=0, who=who, why=why)
    said = {
        "part": "flows",
        **module.fields(transition),
        "event": f"flow {after.value if after else 'forgotten'}",
        "level": "info",
        "timestamp": "now",
    }
    assert module.json_line(transition, "now") == structlog.processors.JSONRenderer()(
        None, "info", logs.harmless(None, "info", said)
    )


CODE = """
from glacic.ctlplane import journal, logs
from glacic.learning.flow import FlowKey, FlowState, Transition
logs.configure()
lines = journal.Journal()
lines.start()
for number in range(1200):
    key = FlowKey("lan_wan", b"\\2\\0\\0\\0\\0\\1", 6, number)
    lines.put(Transition(key=key, before=None, after=FlowState.ALLOWED, at_ns=0, who="tofu", why="because"))
lines.stop(10)
"""


def test_a_service_writes_what_the_logger_would() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], stderr=subprocess.PIPE, check=True)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["port"] for line in said] == list(range(1200))
    assert {(line["event"], line["part"], line["level"]) for line in said} == {("flow allowed", "flows", "info")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", line["timestamp"]) for line in said)
