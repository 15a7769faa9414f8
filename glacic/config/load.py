"""Road 1, the facade of its first half: a path becomes a Config, or everything that is wrong with the files.

Files are read by files.py alone. Whatever they hold, the answer is a Config or located diagnostics.
"""

from __future__ import annotations

from pathlib import Path

from glacic.config.decode import decode
from glacic.config.files import DISK, NOTHING, Files
from glacic.config.include import gather
from glacic.config.lists import Lists
from glacic.config.model import Config
from glacic.config.reader import Report
from glacic.config.source import ERROR, Diagnostic, Source, Span, in_order
from glacic.config.texts import NotText, Texts
from glacic.config.validate import validate
from glacic.config.values import Invalid
from glacic.errors import ConfigError

SIZE_MAX = 4 << 20  # bytes of all files; the grammar takes some 4 s for each million


def load(path: Path, files: Files = DISK) -> Config:
    """The configuration of a file. Raises ConfigError with every error in it; notes are dropped."""
    config, diagnostics = examine(path, files)
    if config is None:
        raise ConfigError(tuple(found for found in diagnostics if found.severity == ERROR))
    return config


def examine(path: Path, files: Files = DISK) -> tuple[Config | None, tuple[Diagnostic, ...]]:
    """The configuration, or None where it has errors; and all errors and notes, in reading order."""
    texts = _texts(files)
    try:
        source = texts.read(path, "the configuration")
    except Invalid as invalid:
        nowhere = Span(Source(str(path), ""), 0, 0, 0, 0)
        return None, (Diagnostic(nowhere, invalid.summary, "see -c/--config"),)
    except NotText as error:
        return None, (error.diagnostic,)
    return _examine(source, texts)


def examine_source(source: Source, files: Files = NOTHING) -> tuple[Config | None, tuple[Diagnostic, ...]]:
    """The same for text that is already there; what it names is looked up in `files`."""
    return _examine(source, _texts(files))


def _texts(files: Files) -> Texts:
    return Texts(files, "the configuration", SIZE_MAX)


def _examine(source: Source, texts: Texts) -> tuple[Config | None, tuple[Diagnostic, ...]]:
    report = Report()
    body, sources = gather(source, texts, report)
    if body is None:
        return None, in_order(report.diagnostics, sources)
    config = decode(body, source, report, Lists(texts.files))
    validate(config, report)
    if not body.attributes and not body.blocks:
        advice = "an empty file would close the firewall for everyone: write at least one block"
        report.error(source.span(0, 0), "the configuration is empty", advice)
    diagnostics = in_order(report.diagnostics, sources)
    return (None if any(found.severity == ERROR for found in diagnostics) else config), diagnostics
