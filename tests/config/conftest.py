"""How the tests of this package say where an error belongs: a `¶` in the text stands just before it.

`errors(text)` takes the marks out, examines the rest, insists that the errors are exactly at the marks, and returns
their summaries and advice as one line each, in file order. `warnings(text)` and `notes(text)` do the same for those.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.load import examine_source
from glacic.config.model import Config
from glacic.config.source import Source

MARK = "¶"

Check = Callable[[str], list[str]]


@pytest.fixture
def errors() -> Check:
    return lambda text: _examined(text, "error")


@pytest.fixture
def warnings() -> Check:
    return lambda text: _examined(text, "warning")


@pytest.fixture
def notes() -> Check:
    return lambda text: _examined(text, "note")


@pytest.fixture
def valid() -> Callable[[str], Config]:
    def examine(text: str) -> Config:
        config, diagnostics = examine_source(Source("a.hcl", text))
        assert config is not None, "\n".join(found.render() for found in diagnostics)
        return config

    return examine


def _examined(text: str, severity: str) -> list[str]:
    places = []
    *lines, _ = f"{text}\n".split("\n")
    for number, line in enumerate(lines, 1):
        pieces = line.split(MARK)
        places += [(number, len("".join(pieces[: at + 1])) + 1) for at in range(len(pieces) - 1)]
    config, diagnostics = examine_source(Source("a.hcl", text.replace(MARK, "")))
    shown = "\n".join(found.render() for found in diagnostics)
    found = [one for one in diagnostics if one.severity == severity]
    assert [(one.span.line, one.span.column) for one in found] == places, shown
    assert (config is None) == any(one.severity == "error" for one in diagnostics)
    return [f"{one.summary}: {one.advice}" for one in found]
