"""What is fuzzed: by name, where its check is, and what it holds to be true.

A check takes any bytes and raises where something is wrong. Its module is imported on demand, so that atheris can
instrument what it imports. Seeds are in corpus/NAME: a finding that was mended stays there, for good. What a mutation
may put in is in words/NAME.dict, as libFuzzer reads it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

Check = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that reads bytes from outside: the check is what `name` in `module` makes. most: bytes of an input."""

    name: str
    module: str
    promise: str
    most: int = 4096

    def check(self) -> AbstractContextManager[Check]:
        """The check, ready to be called any number of times within a `with` block."""
        make: Callable[[], AbstractContextManager[Check]] = getattr(
            importlib.import_module(f"fuzz.{self.module}"), self.name
        )
        return make()

    def seeds(self) -> list[Path]:
        """The files of the seeds, in the order of their names."""
        return sorted((HERE / "corpus" / self.name).iterdir())

    def dictionary(self) -> Path | None:
        """The file of words, where there is one."""
        path = HERE / "words" / f"{self.name}.dict"
        return path if path.exists() else None

    def words(self) -> list[bytes]:
        """The words in it."""
        path = self.dictionary()
        return [ast.literal_eval(f"b{line}") for line in path.read_text().splitlines()] if path else []


TARGETS = (
    Target("packet", "packets", "the compiled and the plain packet decoder agree, and neither raises", 512),
    Target("frame", "packets", "a frame of any link type is a packet or unknown, from any buffer", 512),
    Target("messages", "messages", "netlink: read or left out; short ways agree with long ones; there and back", 2048),
    Target("control", "control", "any request is answered in words, and another client is served meanwhile"),
    Target("hcl", "configuration", "a ruleset that a kernel takes, with no text outside quotes; or located mistakes"),
    Target("generated", "generated", "the same of configurations that are mostly right, made by rows of choices", 256),
    Target("lists", "configuration", "elements as the configuration would read them, or located mistakes", 1024),
    Target("capture", "captures", "read as far as it goes, the same through any buffer", 8192),
)
