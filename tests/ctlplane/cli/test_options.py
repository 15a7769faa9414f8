"""The common options mean the same before and after the command, and come from the environment too."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane.cli import build_parser, main
from glacic.ctlplane.cli.options import CONFIG, SOCKET, STATE_DIR, Options, options_from, say, table


def parsed(words: list[str], environment: dict[str, str] | None = None) -> Options:
    return options_from(build_parser(words).parse_args(words), environment or {})


def test_without_any_the_defaults_hold() -> None:
    assert parsed(["status"]) == Options(CONFIG, STATE_DIR, SOCKET, False)


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "a", "--state-dir", "b", "--socket", "c", "--json", "flows", "list"],
        ["flows", "-c", "a", "--state-dir", "b", "--socket", "c", "--json", "list"],
        ["flows", "list", "-c", "a", "--state-dir", "b", "--socket", "c", "--json"],
        ["--json", "-c", "a", "flows", "--state-dir", "b", "list", "--socket", "c"],
    ],
)
def test_options_may_stand_anywhere(words: list[str]) -> None:
    assert parsed(words) == Options(Path("a"), Path("b"), Path("c"), True)


def test_the_environment_is_second_to_the_command_line() -> None:
    environment = {
        "GLACIC_CONFIG": "a",
        "GLACIC_STATE_DIR": "b",
        "GLACIC_SOCKET": "c",
        "GLACIC_JSON": "1",
    }
    assert parsed(["status"], environment) == Options(Path("a"), Path("b"), Path("c"), True)
    assert parsed(["status", "-c", "x"], environment).config == Path("x")


@pytest.mark.parametrize(("value", "as_json"), [("", False), ("0", False), ("no", False), ("1", True), ("yes", True)])
def test_json_from_the_environment_is_a_yes_or_a_no(value: str, as_json: bool) -> None:
    assert parsed(["status"], {"GLACIC_JSON": value}).json is as_json


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["status", "extra"], ["flows"], ["learn", "on", "--for"], ["replay"]]
)
def test_a_misused_command_is_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_error_is_words_on_stderr_or_json_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["status", "--socket", str(tmp_path / "none")]
    assert main(words) == 3
    assert "no service at" in capsys.readouterr().err
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["exit"] == 3


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        say(text)
        table("", ("what",), [(text,)])
    assert all(line.isprintable() for line in out.getvalue().split("\n"))


def test_a_misused_command_says_so_in_json_where_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "list", "--port", "x", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["exit"], told["error"]) == (2, "argument --port: 'x' is not a whole number")
