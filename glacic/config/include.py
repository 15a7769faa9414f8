"""Step 2 of road 1, continued: `include = "conf.d/*.hcl"` brings in the bodies of other files, where it is written.

What comes out is one body, as if it had been written in one file; every node keeps the place where it stands. A path is
relative to the file that names it. A pattern may match nothing, a path must be there. A file that leads back to
itself, files within files without end, and more of them than anybody writes are refused.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import Path

from glacic.config.decode_rules import text_element
from glacic.config.reader import Reader, Report
from glacic.config.source import Source, Span
from glacic.config.syntax import Body, parse
from glacic.config.texts import NotText, Texts
from glacic.config.values import Invalid

INCLUDE = "include"
DEPTH_MAX = 8  # files within files
FILES_MAX = 1_000


def gather(source: Source, texts: Texts, report: Report) -> tuple[Body | None, list[Source]]:
    """The body of a source with everything that it includes, and the sources in reading order.

    None instead of the body where one of the files cannot be read or is no HCL, for all of which the report has the
    reasons: what is missing then would be missed all over the rest.
    """
    gathering = _Gathering(texts, report)
    body = gathering.body(source, (_identity(Path(source.name)),))
    return (None if gathering.failed else body), gathering.sources


class _Gathering:
    """What was read so far."""

    def __init__(self, texts: Texts, report: Report) -> None:
        self.sources: list[Source] = []
        self.failed = False
        self._texts = texts
        self._report = report
        self._places: dict[str, Span | None] = {}  # identity of a file -> where it was included

    def body(self, source: Source, chain: tuple[str, ...]) -> Body:
        """The body of one source. chain: the identities of the files on the way here, this one last."""
        self.sources.append(source)
        self._places.setdefault(chain[-1], None)
        body, problems = parse(source)
        self._report.diagnostics += problems
        if body is None:
            self.failed = True
            return Body((), ())
        written = tuple(found for found in body.attributes if found.name == INCLUDE)
        if not written:
            return body
        at = written[0].span.start
        reader = Reader(Body(written, ()), source.span(0, 0), self._report, "the configuration")
        inner: list[Body] = []
        for pattern, span in reader.items(INCLUDE, text_element(_pattern), empty="name a file, or leave it out"):
            inner += self._included(Path(source.name).parent / pattern, span, chain)
        others = [found for found in body.attributes if found.name != INCLUDE]
        return Body(
            (
                *(found for found in others if found.span.start < at),
                *(found for part in inner for found in part.attributes),
                *(found for found in others if found.span.start > at),
            ),
            (
                *(found for found in body.blocks if found.span.start < at),
                *(found for part in inner for found in part.blocks),
                *(found for found in body.blocks if found.span.start > at),
            ),
        )

    def _included(self, path: Path, span: Span, chain: tuple[str, ...]) -> Iterator[Body]:
        """The bodies of the files that one path or pattern means."""
        wild = _is_pattern(path.name)
        try:
            found = self._texts.files.matching(path) if wild else [path]
        except (OSError, ValueError) as error:
            self._report.error(span, f"cannot look for {path}: {getattr(error, 'strerror', None) or error}")
            self.failed = True
            return
        for file in found:
            identity = _identity(file)
            first = self._places.get(identity)
            if wild and first is not None and identity not in chain:
                continue  # named before, to have it come earlier
            try:
                yield self._one(file, identity, first, span, chain)
            except Invalid as invalid:
                self._report.error(span, invalid.summary, invalid.advice)
                self.failed = True
                if len(self._places) >= FILES_MAX:
                    return
            except NotText as error:
                self._report.diagnostics.append(error.diagnostic)
                self.failed = True

    def _one(self, file: Path, identity: str, first: Span | None, span: Span, chain: tuple[str, ...]) -> Body:
        if identity in chain:
            raise Invalid(f"{file} includes itself", "leave it out here: a file is read once")
        if first is not None:
            raise Invalid(f"{file} is included twice", f"leave it out here; the first is in {first.seen_from(span)}")
        if len(chain) > DEPTH_MAX:
            raise Invalid(f"files within files, more than {DEPTH_MAX} deep", "include it from the first file")
        if len(self._places) >= FILES_MAX:
            raise Invalid(f"more than {FILES_MAX} files", "merge some of them")
        self._places[identity] = span
        return self.body(self._texts.read(file), (*chain, identity))


def _pattern(text: str) -> str:
    if not text.strip():
        raise Invalid("an empty path", 'write "conf.d/*.hcl"')
    if _is_pattern(str(Path(text).parent)):
        raise Invalid("a wildcard in the name of a directory", '"*" and "?" may stand behind the last slash')
    return text


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _identity(path: Path) -> str:
    """What tells two files apart, by their paths alone: nothing but `Files` is asked, and it may be of another time."""
    return os.path.abspath(path)  # noqa: PTH100 - it takes out "..", which Path.absolute() leaves in
