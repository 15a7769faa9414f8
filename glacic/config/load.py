"""Road 1, the facade of its first half: a path becomes a Config, or everything that is wrong with the file.

The only module of this package that reads files, by files.py. Whatever they hold, the answer is a Config or located
diagnostics.
"""

from __future__ import annotations

from pathlib import Path

from glacic.config.decode import decode
from glacic.config.files import DISK, Files
from glacic.config.model import Config
from glacic.config.reader import Report
from glacic.config.source import ERROR, Diagnostic, Source, Span, in_order
from glacic.config.syntax import parse
from glacic.config.validate import validate
from glacic.errors import ConfigError

SIZE_MAX = 4 << 20  # bytes; the grammar takes some 4 s for each million


def load(path: Path, files: Files = DISK) -> Config:
    """The configuration of a file. Raises ConfigError with every error in it; notes are dropped."""
    config, diagnostics = examine(path, files)
    if config is None:
        raise ConfigError(tuple(found for found in diagnostics if found.severity == ERROR))
    return config


def examine(path: Path, files: Files = DISK) -> tuple[Config | None, tuple[Diagnostic, ...]]:
    """The configuration, or None where it has errors; and all errors and notes, in file order."""
    source, problem = _read(path, files)
    if source is None:
        return None, (problem,) if problem else ()
    return examine_source(source)


def examine_source(source: Source) -> tuple[Config | None, tuple[Diagnostic, ...]]:
    """The same for text that is already there."""
    body, problems = parse(source)
    if body is None:
        return None, in_order(problems)
    report = Report(list(problems))
    config = decode(body, source, report)
    validate(config, report)
    if not body.attributes and not body.blocks:
        advice = "an empty file would close the firewall for everyone: write at least one block"
        report.error(source.span(0, 0), "the configuration is empty", advice)
    diagnostics = in_order(report.diagnostics)
    return (None if any(found.severity == ERROR for found in diagnostics) else config), diagnostics


def _read(path: Path, files: Files) -> tuple[Source | None, Diagnostic | None]:
    name = str(path)
    try:
        data = files.read(path, SIZE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return None, _unreadable(name, f"cannot read the configuration: {getattr(error, 'strerror', None) or error}")
    if len(data) > SIZE_MAX:
        return None, _unreadable(name, f"the configuration is larger than {SIZE_MAX >> 20} MiB")
    try:
        return Source(name, data.decode("utf-8-sig")), None
    except UnicodeDecodeError as error:
        return None, _not_utf8(name, data, error.start)


def _unreadable(name: str, summary: str) -> Diagnostic:
    return Diagnostic(Span(Source(name, ""), 0, 0, 0, 0), summary, "see -c/--config")


def _not_utf8(name: str, data: bytes, offset: int) -> Diagnostic:
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        advice = "it looks like UTF-16: save it as UTF-8"
    else:
        advice = "save the file as UTF-8"
    readable = data.decode("utf-8-sig", "replace")
    start = len(data[:offset].decode("utf-8-sig", "replace"))
    span = Source(name, readable).span(start, start + 1)
    return Diagnostic(span, f"byte 0x{data[offset]:02x} is not UTF-8", advice)
