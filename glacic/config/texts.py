"""Step 0 of road 1: the files of one configuration become texts, as long as they are not too much in all.

Reads by files.py alone, so that a configuration whose files are gone can be read again. Refuses to know what a text
means.
"""

from __future__ import annotations

from pathlib import Path

from glacic.config.files import Files
from glacic.config.source import Diagnostic, Source
from glacic.config.values import Invalid


class NotText(Exception):
    """A file that is no UTF-8, and the place where it stops being so."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.summary)
        self.diagnostic = diagnostic


class Texts:
    """The texts of some files. `what` they are is for messages; `most` is the number of bytes of all of them."""

    def __init__(self, files: Files, what: str, most: int) -> None:
        self.files = files
        self._what = what
        self._most = most
        self._left = most

    def read(self, path: Path, called: str = "") -> Source:
        """One file. Raises Invalid where it cannot be read or is too large, NotText where it is no text."""
        try:
            data = self.files.read(path, self._left + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            advice = 'write "*" behind it for the files in it' if isinstance(error, IsADirectoryError) else ""
            reason = getattr(error, "strerror", None) or error
            raise Invalid(f"cannot read {called or path}: {reason}", advice) from None
        if len(data) > self._left:
            raise Invalid(f"{self._what} is larger than {self._most >> 20} MiB", "the size of all its files counts")
        self._left -= len(data)
        try:
            return Source(str(path), data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise NotText(_not_utf8(str(path), data, error.start)) from None


def _not_utf8(name: str, data: bytes, offset: int) -> Diagnostic:
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        advice = "it looks like UTF-16: save it as UTF-8"
    else:
        advice = "save the file as UTF-8"
    readable = data.decode("utf-8-sig", "replace")
    start = len(data[:offset].decode("utf-8-sig", "replace"))
    span = Source(name, readable).span(start, start + 1)
    return Diagnostic(span, f"byte 0x{data[offset]:02x} is not UTF-8", advice)
