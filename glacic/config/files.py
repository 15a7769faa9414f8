"""Road 1, below the facade: where the text of a configuration comes from: the disk, or what was kept of it.

A configuration may be put in force again long after its files have changed, so what was read can be kept and read
again, path by path. Refuses to know what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """What reading a configuration needs of a file system."""

    def read(self, path: Path, most: int) -> bytes:
        """The first `most` bytes of a file. Raises OSError, or ValueError for a path that cannot be one."""

    def matching(self, pattern: Path) -> list[Path]:
        """The files whose path matches, `*` and `?` in its last part, in the order of their names; [] for none.

        As in a shell, a name that begins with a dot is matched by none that does not. Raises OSError where the
        directory cannot be read; ValueError for one that cannot be.
        """


class Disk:
    """The files as they are now."""

    def read(self, path: Path, most: int) -> bytes:
        """See Files.read."""
        with path.open("rb") as file:
            return file.read(most)

    def matching(self, pattern: Path) -> list[Path]:
        """See Files.matching."""
        try:
            found = sorted(path for path in pattern.parent.iterdir() if _matches(path.name, pattern.name))
        except FileNotFoundError:
            return []
        return [path for path in found if not path.is_dir()]  # a link to nowhere stays: somebody wants that file


class Kept:
    """Files as they were when somebody recorded them: path -> content."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents

    def read(self, path: Path, most: int) -> bytes:
        """See Files.read."""
        try:
            return self.contents[str(path)][:most]
        except KeyError:
            raise FileNotFoundError(2, "not among the files that were kept") from None

    def matching(self, pattern: Path) -> list[Path]:
        """See Files.matching."""
        paths = (Path(name) for name in self.contents)
        return sorted(path for path in paths if path.parent == pattern.parent and _matches(path.name, pattern.name))


class Recorder:
    """Reads from other files, and remembers what it has read."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.contents: dict[str, bytes] = {}

    def read(self, path: Path, most: int) -> bytes:
        """See Files.read."""
        found = self._files.read(path, most)
        self.contents[str(path)] = found
        return found

    def matching(self, pattern: Path) -> list[Path]:
        """See Files.matching."""
        return self._files.matching(pattern)


def _matches(name: str, pattern: str) -> bool:
    """`*` and `?` alone are special."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatchcase(name, pattern.replace("[", "[[]"))


DISK: Files = Disk()
NOTHING: Files = Kept({})
