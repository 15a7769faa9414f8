"""`glacic check`: every error with its place, a yes or a no."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glacic.ctlplane import units
from glacic.ctlplane.cli import main

TEN_MISTAKES = """\
rule_learning {
  enabled    = true
  enabled    = false
  log_group  = 70000
  inlin_mode = true
}
zone "lan" {
  interface = "lan0"
  identity  = mac
}
zone "office" {
  interfaces = ["eth0", "lan*"]
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wann" {
  action = "drop"
}
policy "wan" "lan" {
  learn = true
  rule "ping" {
    proto     = "icmp"
    dest_port = 80
    action    = "accept"
  }
  rule "net" {
    src_ip = "10.0.0.0/33"
    action = "acept"
  }
}
"""


def test_ten_mistakes_are_ten_located_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ten.hcl"
    path.write_text(TEN_MISTAKES)
    assert main(["check", "-c", str(path)]) == 1
    out = capsys.readouterr().out
    located = [line.split(":")[1] for line in out.splitlines() if line.startswith(f"{path}:") and " error: " in line]
    assert located == ["3", "4", "5", "9", "12", "18", "22", "25", "29", "30"]
    assert main(["check", "-c", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["valid"] is False
    assert [str(error["line"]) for error in document["errors"]] == located


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "configs").glob("*.hcl")), ids=lambda p: p.name)
def test_every_worked_example_is_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


@pytest.mark.parametrize("missing", [True, False])
def test_what_this_kernel_lacks_is_noted_at_its_place(
    missing: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.hcl"
    path.write_text('zone "lan" { interface = "lan0" }\nflowtable = true\n')
    monkeypatch.setattr("glacic.ctlplane.probes.lacks", lambda _: missing)
    assert main(["check", "-c", str(path), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [(note["line"], note["summary"]) for note in notes] == [(2, "this kernel has no flow tables")] * missing


def test_a_limit_of_a_unit_that_looks_like_a_slip_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "known_units", lambda: frozenset({"backup.service"}))
    path = tmp_path / "limits.hcl"
    path.write_text('limit "a" {\n  unit   = "bakcup.service"\n  upload = "1 mbit"\n}\n')
    assert main(["check", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}:2:3: note: this machine has no unit bakcup.service" in out
    assert 'did you mean "backup.service"?' in out
    assert out.endswith("valid: 0 zones, 0 policies, 0 rules, 1 limit\n")
    assert main(["check", "-c", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [note["line"] for note in document["notes"]] == [2]
