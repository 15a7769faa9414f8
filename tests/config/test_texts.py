"""Texts: files become text until they are too much in all, and what is none is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.config.files import Kept
from glacic.config.texts import NotText, Texts
from glacic.config.values import Invalid


def texts(most: int = 10, **contents: bytes) -> Texts:
    return Texts(Kept(contents), "the list", most)


def test_a_text_comes_without_its_byte_order_mark() -> None:
    source = texts(a=b"\xef\xbb\xbfone").read(Path("a"))
    assert (source.name, source.text) == ("a", "one")


def test_the_size_of_all_files_counts() -> None:
    two = texts(a=b"12345", b=b"123456")
    assert two.read(Path("a")).text == "12345"
    with pytest.raises(Invalid, match="the list is larger than 0 MiB"):
        two.read(Path("b"))
    assert texts(a=b"1234567890").read(Path("a")).text == "1234567890"


def test_a_file_that_cannot_be_read_is_named_as_it_is_called() -> None:
    with pytest.raises(Invalid, match="cannot read a: not among the files"):
        texts().read(Path("a"))
    with pytest.raises(Invalid, match="cannot read the configuration: "):
        texts().read(Path("a"), "the configuration")


def test_what_is_no_utf8_is_told_at_its_byte() -> None:
    with pytest.raises(NotText) as caught:
        texts(a="# ü\nx".encode() + b"\xff").read(Path("a"))
    assert str(caught.value.diagnostic.span) == "a:2:2"
    assert caught.value.diagnostic.summary == "byte 0xff is not UTF-8"
    with pytest.raises(NotText) as caught:
        texts(a="x".encode("utf-16")).read(Path("a"))
    assert "UTF-16" in caught.value.diagnostic.advice
