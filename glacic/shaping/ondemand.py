"""Limits, engines that are made when a limit comes: what they import, and what they leave, is nobody else's cost.

An engine of tc imports pyroute2 (25 MB, 0.1 s) and asks rtnetlink about every interface. A service without such a
limit must not, and yet one that was killed must clean what it left, also where its limits are gone from the file by
now. So there is a note in the state directory from before the first limit of an engine until after its last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from glacic.errors import KernelRefused
from glacic.shaping.engine import Counted, Engine, Item


def note_of(folder: Path, name: str) -> Path:
    """The note that an engine of this name has, or has had, limits in the kernel."""
    return folder / f"limits-by-{name}"


class OnDemand:
    """See Engine. make: the engine itself, called once. note: a file; its folder is there."""

    def __init__(self, name: str, make: Callable[[], Engine], note: Path) -> None:
        self.name = name
        self._make, self._note = make, note
        self._engine: Engine | None = None

    def put(self, items: Sequence[Item]) -> None:
        """See Engine.put."""
        if items:
            self._noted().put(items)
        else:
            self.remove()

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        """See Engine.counters."""
        return {} if self._engine is None else self._engine.counters()

    def adopt(self) -> None:
        """See Engine.adopt."""
        if self._note.exists():
            self._made().adopt()

    def remove(self) -> None:
        """See Engine.remove."""
        if self._note.exists():
            self._made().remove()
            self._note.unlink(missing_ok=True)

    def _made(self) -> Engine:
        if self._engine is None:
            self._engine = self._make()
        return self._engine

    def _noted(self) -> Engine:
        """The engine, with a note that a later run finds. Raises KernelRefused where there can be none."""
        if not self._note.exists():
            try:
                self._note.touch(0o600)
            except OSError as error:
                raise KernelRefused(f"cannot note in {self._note} what is to be given back: {error.strerror}") from None
        return self._made()
