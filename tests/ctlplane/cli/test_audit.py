"""`glacic audit` and what commands put on the trail by themselves."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.cli import main
from glacic.ctlplane.cli.audit import recorded
from glacic.ctlplane.cli.options import Options
from glacic.ctlplane.handlers import Handlers
from glacic.ctlplane.server import Server
from glacic.ctlplane.service import Service
from glacic.errors import KernelRefused


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    trail = AuditTrail(tmp_path / "audit.log")
    for number in range(5):
        trail.append(who=f"user u{number % 2}", action="flows.set", args={"verb": "deny", "n": number}, outcome="ok")
    return trail


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    common = ["--state-dir", str(tmp_path), "--socket", str(tmp_path / "glacic.sock")]
    assert main(["audit", *common, *words]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("served", [False, True])
def test_the_trail_is_shown_with_the_service_and_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trail: AuditTrail, served: bool
) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    server = None
    if served:
        requests = Handlers(cast(Service, SimpleNamespace(trail=trail, limits=None, state_dir=tmp_path))).table()
        server = Server(tmp_path / "glacic.sock", requests, trail)
        loop.run_until_complete(server.start())
    thread.start()
    try:
        found = json.loads(said(tmp_path, capsys, "--json"))
        assert [entry["number"] for entry in found["entries"]] == [1, 2, 3, 4, 5]
        assert found["intact"] is True
        few = json.loads(said(tmp_path, capsys, "--json", "--limit", "2", "--who", "u0"))
        assert [entry["number"] for entry in few["entries"]] == [3, 5]
        assert json.loads(said(tmp_path, capsys, "--json", "--since", "1h"))["entries"] == found["entries"]
        assert json.loads(said(tmp_path, capsys, "--json", "--since", "2999-01-01"))["entries"] == []
        shown = said(tmp_path, capsys, "--verify")
        assert "verb=deny, n=4" in shown
        path = tmp_path / "audit.log"
        path.write_text(path.read_text().replace("u1", "u7", 1))
        assert "NOT INTACT: audit.log:2" in said(tmp_path, capsys, "--verify", code=1)
        assert json.loads(said(tmp_path, capsys, "--json", "--verify", code=1))["intact"] is False
    finally:
        if server is not None:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(60)
            asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_where_nobody_answers_and_nothing_is_written_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(tmp_path, capsys, code=3)


@pytest.mark.parametrize("words", [["--since", "soon"], ["--limit", "-1"], ["--limit", "\u0661"]])
def test_what_is_no_time_and_no_number_is_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert "error" in json.loads(said(tmp_path, capsys, "--json", *words, code=2))


def test_a_command_puts_what_it_does_on_the_trail_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    options = Options(state_dir=tmp_path)
    with recorded(options, "apply", config="/etc/glacic/glacic.hcl"):
        pass
    with pytest.raises(KernelRefused), recorded(options, "unload"):
        raise KernelRefused("no")
    first, second = AuditTrail(tmp_path / "audit.log").entries()[0]
    assert (first["who"], first["action"], first["outcome"]) == ("user root", "apply", "ok")
    assert first["source"].startswith("ssh 192.0.2.1 50000 192.0.2.2 22")
    assert (second["action"], second["outcome"]) == ("unload", "no")


def test_a_trail_that_cannot_be_written_stops_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with recorded(Options(state_dir=Path("/dev/null")), "unload"):
        done: Any = True
    assert done
    assert "unload is not on the trail" in capsys.readouterr().err
