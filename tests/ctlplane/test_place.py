"""The socket's file and folder: modes and groups, whatever the umask, and nothing that others could rename."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from glacic.ctlplane import place
from glacic.errors import GlacicError

GROUP = 64_101


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_the_socket_is_born_for_its_owner_only_and_then_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    seen = []
    give_group = place.give_group

    def look(path: Path, group: int) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode) & 0o177)
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        give_group(path, group)

    monkeypatch.setattr(place, "give_group", look)
    before = os.umask(umask)
    try:
        place.listening(tmp_path / "a.sock", GROUP, 1).close()
    finally:
        os.umask(before)
    state = (tmp_path / "a.sock").stat()
    assert seen == [0]
    assert (stat.S_IMODE(state.st_mode), state.st_gid) == (0o660, GROUP)


def test_a_folder_that_is_made_lets_in_the_group_only(tmp_path: Path) -> None:
    place.make_way(tmp_path / "a" / "run" / "a.sock", GROUP)
    state = (tmp_path / "a" / "run").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_gid) == (0o750, GROUP)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    place.make_way(tmp_path / "a.sock", GROUP)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o711


def test_a_folder_where_everybody_may_rename_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(GlacicError, match="writable by everybody"):
        place.make_way(tmp_path / "a.sock", GROUP)
    tmp_path.chmod(0o1777)
    place.make_way(tmp_path / "a.sock", GROUP)
