"""A service that answers what a test says, at a real control socket: `fake.answers["limits.list"] = {...}`, or a
function of the arguments. What was asked is in `fake.asked`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from glacic.ctlplane import protocol
from glacic.errors import GlacicError


class FakeService:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def args(self, do: str) -> list[dict[str, Any]]:
        """The arguments of each request of this name."""
        return [args for name, args in self.asked if name == do]

    def stop(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                asked = protocol.unpack_request(line)
                self.asked.append((asked.do, asked.args))
                connection.sendall(protocol.pack(self._answer(asked)))

    def _answer(self, asked: protocol.Asked) -> dict[str, Any]:
        if asked.do not in self.answers:
            return protocol.refusal(GlacicError(f"no such request: {asked.do}"))
        answer = self.answers[asked.do]
        try:
            return protocol.answer(answer(asked.args) if callable(answer) else answer)
        except GlacicError as error:
            return protocol.refusal(error)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeService]:
    service = FakeService(tmp_path / "fake.sock")
    yield service
    service.stop()


def limit_row(name: str = "backup", **other: Any) -> dict[str, Any]:
    """A limit as the service tells it."""
    row = {
        "name": name,
        "kind": "unit",
        "target": f"{name}.service",
        "upload": None,
        "download": 2 << 20,
        "engine": "auto",
        "engine_upload": None,
        "engine_download": "nft",
        "why": "auto: nft works here",
        "traffic": "all",
        "interface": None,
        "description": "",
        "origin": "config",
        "state": "active",
        "cgroup": f"system.slice/{name}.service",
        "cgroup_id": 42,
        "level": 2,
    }
    for direction in ("upload", "download"):
        row |= {f"{what}_{direction}": 0 for what in ("bytes", "packets", "dropped_bytes", "dropped_packets")}
    row |= other
    return row | {"upload_text": None, "download_text": "2 MiB/s (16.8 Mbit/s)"}


@pytest.fixture
def row() -> Any:
    return limit_row
