"""How the demo is told: the figures of the story are in it, and nothing else decides what it says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from glacic.config.load import load
from glacic.lab import scenario, table
from glacic.lab.scenario import First, Step, Story
from glacic.lab.traffic import Result

FLOW = {"id": 7, "policy": "lan_wan", "source": "02:00:00:00:00:10", "protocol": "tcp", "port": 8080}


def story(retransmits: int) -> Story:
    kept = Result(ok=True, error="", count=1, answered=1, connect_ms=12.3, retransmits=retransmits)
    lost = Result(ok=True, error="", count=1, answered=1, connect_ms=1034.5, retransmits=1)
    flow = {**FLOW, "state": "allowed", "packets": 102, "origin": "tofu"}
    firsts = [First("asynchronous", "log group 100", lost), First("inline", "queue num 100 bypass", kept)]
    return Story("6.1.0", firsts, [Step("laptop", "tcp/8080", "answered", "0 packets")], [flow])


def shown(told: Story) -> str:
    out = io.StringIO()
    table.show(told, Console(file=out, width=120))
    return out.getvalue()


def test_every_measured_figure_is_shown() -> None:
    text = shown(story(0))
    for figure in ("1,034.5 ms", "12.3 ms", "queue num 100 bypass", "102", "lan_wan", "0 packets", "Linux 6.1.0"):
        assert figure in text


@pytest.mark.parametrize(("retransmits", "verdict"), [(0, "It kept the first packet"), (1, "It lost the first packet")])
def test_what_it_says_in_the_end_is_what_was_measured(retransmits: int, verdict: str) -> None:
    assert verdict in shown(story(retransmits))


def test_the_same_is_there_as_json_and_as_a_picture(tmp_path: Path) -> None:
    assert json.loads(json.dumps(table.as_dict(story(0))))["firsts"][1]["result"]["connect_ms"] == 12.3
    table.draw(story(0), tmp_path / "demo.svg")
    picture = (tmp_path / "demo.svg").read_text()
    assert "12.3" in picture
    assert "@font-face" not in picture


@pytest.mark.parametrize("inline", [True, False])
def test_the_demo_configures_the_router_with_a_valid_file(tmp_path: Path, inline: bool) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(scenario.configuration(inline=inline))
    assert load(path).rule_learning.inline_mode is inline
