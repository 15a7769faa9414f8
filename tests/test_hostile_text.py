"""Text from outside, at every way out: nothing of it reaches an nft script, a terminal or a log line unescaped or
without end. Each row of HOSTILE goes through each exit."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from glacic.config import edit
from glacic.config.load import examine_source
from glacic.config.source import MAX_SHOWN, Source
from glacic.ctlplane import protocol, sdnotify
from glacic.ctlplane.cli import _crash, _fail, limits, limits_change, limits_watch, main
from glacic.ctlplane.cli.options import Options, say, table, warn
from glacic.errors import GlacicError, KernelRefused
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import _readable
from glacic.firewall.render import render

HOSTILE = {
    "quotes": "a\"b'c`d\\",
    "newline": 'a\nb\r\n}\n"; flush ruleset\n#',
    "CSI": "a\x1b[2J\x1b[31mb",
    "CSI without blanks": "\x1b[2J",
    "OSC": "\x1b]0;title\x07\x1b]52;c;aGk=\x1b\\",
    "C1": "a\x9b2J\x9d0;x\x9c\x85\x80",
    "NUL and DEL": "a\0b\x7fc",
    "bidi marks": "a\u202a\u202b\u202c\u202d\u202eb",
    "bidi isolates": "a\u2066\u2067\u2068\u2069\u200e\u200f\u061cb",
    "zero width": "a\u200b\u200c\u200d\u2060\ufeffb",
    "line separators": "a\u2028b\u2029c\u0085d",
    "tags and noncharacters": "a\U000e0041\ufffe\U0010ffffb",
    "half a surrogate pair": "a\ud800b\udcffc",
    "64 KiB": "x" * 65_536,
    "64 KiB of escapes": "\x1b[31m" * 13_107,
    "64 KiB of newlines": "\n" * 65_536,
    "markup": "[red]x[/red][link=http://x]y[/link]",
    "nft": '$(reboot) $define @set { } ; # include "/etc/passwd"',
    "json": '"}\n{"do": "reload"}',
}
LONGEST = 3 * MAX_SHOWN  # of one line anywhere: one text, and what is said around it
rows = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def harmless(shown: str, lines: int = 2000, longest: int = LONGEST) -> bool:
    """Whether this can be shown: printable lines, tabs in them, of bounded number and length."""
    split = shown.split("\n")
    assert [line[:80] for line in split if not line.replace("\t", "").isprintable()] == []
    return len(split) <= lines and max(map(len, split)) <= longest


def in_hcl(text: str) -> list[str]:
    """The text as a string of HCL: as it stands, where that is possible, and all in escapes."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    escaped = "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}" for char in text)
    return [f'"{plain}"', f'"{escaped}"']


TEMPLATE = """\
rule_learning {{
  enabled = true
}}
zone {zone} {{
  interface   = {interface}
  description = {description}
}}
zone "wan" {{
  interface = "wan0"
  external  = true
}}
policy {zone} "wan" {{
  name        = {policy}
  description = {description}
  rule {rule} {{
    action  = "accept"
    proto   = "tcp"
    comment = {comment}
    log     = {log}
  }}
}}
set {set} {{
  type        = "address"
  description = {description}
}}
nat {nat} {{
  type          = "masquerade"
  out_interface = "wan0"
  description   = {comment}
}}
limit {limit} {{
  cgroup      = {cgroup}
  upload      = {rate}
  engine      = "shape"
  interface   = {interface}
  description = {comment}
}}
limit "unit" {{
  unit   = {unit}
  upload = "1 mbit"
}}
limit "slice" {{
  slice  = {slice}
  upload = "1 mbit"
}}
"""
FIELDS = ("zone", "interface", "description", "policy", "rule", "comment", "log", "set", "nat")
LIMIT_FIELDS = ("limit", "cgroup", "unit", "slice", "rate")
PLAIN = {name: f'"{name}"' for name in (*FIELDS, "limit", "cgroup")} | {
    "interface": '"lan0"',
    "unit": '"a.service"',
    "slice": '"a.slice"',
    "rate": '"1 mbit"',
}


@pytest.mark.parametrize("field", [*FIELDS, *LIMIT_FIELDS])
@rows
def test_a_configuration_becomes_a_clean_script_or_clean_diagnostics(text: str, field: str) -> None:
    for value in in_hcl(text):
        config, found = examine_source(Source(f"a{text}.hcl", TEMPLATE.format(**{**PLAIN, field: value})))
        assert config is not None or found
        for diagnostic in found[:20]:
            assert harmless(diagnostic.render())
            assert harmless("".join(map(str, diagnostic.as_dict().values())))
        if config is not None:
            script = render(compile_config(config))
            assert harmless(script)
            assert "flush ruleset" not in script.replace("'; flush ruleset", "")


def test_the_template_is_a_configuration() -> None:
    config, found = examine_source(Source("plain", TEMPLATE.format(**PLAIN)))
    assert [diagnostic.render() for diagnostic in found if diagnostic.severity == "error"] == []
    assert config is not None


@rows
def test_a_limit_that_is_accepted_names_one_cgroup_and_can_be_written_back(text: str) -> None:
    for field in LIMIT_FIELDS:
        for value in in_hcl(text):
            config, _ = examine_source(Source("a.hcl", TEMPLATE.format(**{**PLAIN, field: value})))
            for limit in config.limits if config is not None else ():
                assert harmless(f"{limit.name}{limit.target}{limit.description}")
                assert not {"", ".", ".."} & set(limit.target.split("/"))
                wanted = {str(limit.kind): limit.target, "upload": "1 mbit"}
                again, found = examine_source(Source("b.hcl", edit.with_limit(Source("b.hcl", ""), limit.name, wanted)))
                assert again is not None, found
                assert [(one.name, one.target) for one in again.limits] == [(limit.name, limit.target)]


@rows
def test_what_a_limit_shows_of_names_that_others_chose(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A cgroup's name is any bytes; whoever makes one could choose it, and its limit by default bears it."""
    limit = {
        "name": f"default:{text}",
        "kind": "unit",
        "target": text,
        "upload": 1000,
        "download": None,
        "why": text,
        "engine_upload": text,
        "engine_download": None,
        "traffic": "all",
        "origin": "default",
        "state": "waiting",
        "cgroup": text,
        "bytes_upload": 0,
        "dropped_bytes_upload": 0,
    }
    limits.show_list({"limits": [limit, limit], "trouble": text})
    limits.show_limit({**limit, "cannot": [text]})
    limits_change.about({**limit, "kind": "cgroup"})
    meters = limits_watch.Meters()
    for at_s in (0.0, 1.0):
        meters.feed({"at_s": at_s, "limits": [limit]})
    limits_watch.show(meters.rows(), Options())
    said = capsys.readouterr()
    assert harmless(said.out, lines=4000)
    assert harmless(said.err)
    limits_watch.show(meters.rows(), Options(json=True))
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1


@rows
def test_what_people_are_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    warn(text)
    table(text, ("a", "b"), [(text, 1), (text[::-1], 2)])
    _fail(Options(), GlacicError(f"no such flow: {text}"))
    _fail(Options(), KernelRefused(_readable(f"/proc/self/fd/5:1:2-3: Error: syntax error, {text}\n{text}\n^^^")))
    said = capsys.readouterr()
    assert harmless(said.out, lines=4000)
    assert harmless(said.err, lines=70_000)


@rows
def test_what_programs_are_shown_is_ascii(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Options().emit({"name": text, text: [text]})
    _fail(Options(json=True), GlacicError(text))
    said = capsys.readouterr().out
    assert said.isascii()
    assert said.replace("\n", "").isprintable() or "\x7f" in text
    line = protocol.pack(protocol.refusal(GlacicError(text)))
    assert line.isascii()
    assert line.count(b"\n") == 1


@rows
def test_words_that_no_command_knows(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        [text],
        ["status", text],
        ["flows", text],
        ["status", f"--{text}"],
        ["stats", "--interval", text],
        ["limits", text],
        ["limits", "set", "a", "--upload", text],
        ["limits", "self-test", "--seconds", text],
    ):
        with pytest.raises(SystemExit):
            main(words)
    assert harmless(capsys.readouterr().err)


@rows
def test_files_with_such_names(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = text.replace("/", "_").replace("\0", "_")[:80]
    path = os.fsencode(tmp_path) + b"/" + name.encode("utf-8", "surrogateescape" if "\ud800" not in name else "replace")
    Path(os.fsdecode(path)).write_text('zone "lan" {}\n')
    file = os.fsdecode(path)
    assert main(["check", "-c", file]) == 1
    assert main(["check", "-c", file + "x"]) == 1
    assert main(["show", "-c", file]) == 1
    assert main(["replay", "-c", file, file]) == 1
    assert main(["status", "--socket", file]) == 3
    unseen = (
        ["list"],
        ["show", text],
        ["clear", text, "--save"],
        ["watch", "--once"],
        ["set", "a.service", "--upload", "1 mbit"],
    )
    for words in (
        ["history"],
        ["confirm"],
        ["rollback"],
        ["panic"],
        ["show", "--diff"],
        *(["limits", *w] for w in unseen),
    ):
        assert main([*words, "-c", file, "--socket", file, "--state-dir", file]) in (1, 3)
    assert main(["audit", "--socket", file, "--state-dir", file]) in (1, 3)
    said = capsys.readouterr()
    assert harmless(said.out)
    assert harmless(said.err)


@rows
def test_a_crash(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        int(text, 1000)
    except ValueError as error:
        _crash(RuntimeError, RuntimeError(text), error.__traceback__)
    assert harmless(capsys.readouterr().err, lines=70_000)


@rows
def test_what_systemd_is_told_stays_one_variable(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert sdnotify.notify("READY=1", f"STATUS=degraded: {text}\nMAINPID=1")
        told = manager.recv(1 << 20).decode()
    assert told.count("\n") == 1
    assert harmless(told)


LOG = """
import json, sys
from types import SimpleNamespace
from glacic.ctlplane import journal, logs
from glacic.learning.flow import FlowKey, FlowState, Transition
logs.configure()
for text in json.load(open(sys.argv[1])):
    logs.logger("test").info(text, name=text, wrapped={text: [text]}, error=str(text))
    key = FlowKey(text, b"\\2\\0\\0\\0\\0\\1", 6, 443)
    journal._write([Transition(key=key, before=None, after=FlowState.PENDING, at_ns=0, who=text, why=text)])
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logs.logger("test").exception("failed")
    print("END", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "texts"
    path.write_text(json.dumps(list(HOSTILE.values())))
    return path


def test_log_lines_off_a_terminal(texts: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOG, str(texts)], stderr=subprocess.PIPE, check=True)
    lines = done.stderr.decode("ascii").split("\n")
    assert lines.count("END") == len(HOSTILE)
    said = [json.loads(line) for line in lines if line not in ("END", "")]
    assert len(said) == 3 * len(HOSTILE)
    assert all(len(line) < 10 * MAX_SHOWN for line in lines)
    for event in said:
        assert all(harmless(str(part)) for part in event.values())


def test_log_lines_on_a_terminal(texts: Path) -> None:
    shown = on_a_terminal([sys.executable, "-c", LOG, str(texts)])
    blocks = [block.strip("\n") for block in shown.split("END\n")]
    assert len(blocks) == len(HOSTILE) + 1
    for block in blocks[:-1]:
        line, change, *stack = block.split("\n")
        assert line.startswith("20")
        assert "policy=" in change
        assert "Traceback" in stack[1]
        assert harmless(block, longest=5 * MAX_SHOWN)  # five fields of the first line hold the text


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to its terminal, without the colours that it may use itself."""
    import re
    import threading

    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # EIO: nobody has the other end any more
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        subprocess.run(command, stderr=theirs, stdout=theirs, check=True)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;]{0,6}m", "", b"".join(pieces).decode()).replace("\r\n", "\n")
