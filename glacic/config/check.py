"""Step 4 of road 1, the tool of the validate modules: the attributes of one block as places to report at.

Knows what was written and what could not be read, so that nobody complains about the same thing twice. Refuses to know
any attribute by name.
"""

from __future__ import annotations

from glacic.config.model import Spans
from glacic.config.reader import Report, element_key
from glacic.config.source import Span


class Check:
    """The places of one block, and where to report."""

    def __init__(self, spans: Spans, report: Report) -> None:
        self.spans = spans
        self.report = report

    def usable(self, *names: str) -> bool:
        """Whether none of the attributes is written and unreadable."""
        return not any(name in self.spans and self.spans[name] in self.report.broken for name in names)

    def written(self, name: str) -> bool:
        """Whether the attribute is written, under its right name, readable or not."""
        return name in self.spans and self.spans[name].text.startswith(name)

    def readable(self, name: str) -> bool:
        """Whether the attribute is written, and readable."""
        return name in self.spans and self.usable(name)

    def error(self, name: str, summary: str, advice: str = "") -> None:
        """Report at an attribute."""
        self.report.error(self.spans[name], summary, advice)

    def element(self, name: str, index: int) -> Span:
        """Where an element stands; the attribute where elements were left out."""
        return self.spans.get(element_key(name, index), self.spans[name])
