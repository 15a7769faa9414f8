"""Road 1: the seam to the kernel's nf_tables: a Protocol of three methods, libnftables behind it, a fake beside it.

Refuses to list elements. A learned set may have a million of them, and of nft's listings only two leave them in the
kernel (measured with nft 1.0.6): `list chains`, and a terse `list sets` of one table. Even `list tables` fetches them.
What else the kernel has to be asked, dump.py asks.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from glacic.errors import KernelRefused
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.dump import Dump
from glacic.firewall.ruleset import Inventory

_INCLUDED_FROM = re.compile(r"^In file included from .*:\n", re.MULTILINE)
_LOCATION = re.compile(r"^/proc/self/fd/\d+:(\d+):(\d+)-\d+: Error: ", re.MULTILINE)
_HANDLE = re.compile(r"(.*) # handle (\d+)")
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_MAX_ERRORS = 4_000  # characters: nft repeats itself for every line with the same fault


class Nft(Protocol):
    """What Glacic needs of nf_tables. One caller at a time is not required."""

    def check(self, script: str) -> None:
        """Have the kernel look at a script, and change nothing. Raises KernelRefused as `run` would."""

    def run(self, script: str) -> None:
        """Run a script as one transaction. Raises KernelRefused, and then nothing has changed."""

    def inventory(self) -> Inventory | None:
        """What the table consists of; None where there is no table. Raises KernelRefused."""

    def interfaces(self) -> frozenset[str]:
        """The names of the network interfaces there are. Raises KernelRefused."""


class Libnftables:
    """libnftables, in this process. It belongs to the network namespace that it is made in.

    KernelRefused says what nft says: line, column and text of the script, with a caret.
    """

    def __init__(self) -> None:
        try:
            import nftables
        except ImportError as error:
            raise KernelRefused("the Python module nftables is missing: install pip-nftables") from error
        try:
            self._nft = nftables.Nftables()
        except OSError as error:
            raise KernelRefused(f"libnftables cannot be loaded ({error}): install libnftables1") from error
        self._nft.set_json_output(True)
        self._nft.set_terse_output(True)
        self.dump = Dump(TABLE)
        self._lock = threading.Lock()  # a context takes one command at a time

    def check(self, script: str) -> None:
        """See Nft.check."""
        with _file_of(script) as path:
            error = _dry_run(path)
        if error is not None:
            raise KernelRefused(_readable(error))

    def run(self, script: str) -> None:
        """See Nft.run."""
        # By way of a file, in memory: of a script in a buffer nft names no lines.
        with _file_of(script) as path:
            status, _, error = self._command(f'include "{path}"')
        if status != 0:
            raise KernelRefused(_readable(error))

    def inventory(self) -> Inventory | None:
        """See Nft.inventory."""
        status, output, error = self._command(f"list sets table {FAMILY} {TABLE}")
        if status != 0:
            if "No such file or directory" in error:
                return None
            raise KernelRefused(_readable(error))
        sets = frozenset(entry["name"] for entry in _objects(output, "set"))
        status, output, error = self._command("list chains")
        if status != 0:
            raise KernelRefused(_readable(error))
        hooks = {
            chain["name"]: (chain["type"], chain["hook"], chain["prio"]) if "hook" in chain else None
            for chain in _objects(output, "chain")
        }
        return Inventory(
            chains=frozenset(hooks),
            sets=sets,
            counters=frozenset(self.dump.counters()),
            flowtables=self.dump.flowtables(),
            hooks=hooks,
        )

    def interfaces(self) -> frozenset[str]:
        """See Nft.interfaces."""
        return self.dump.interfaces()

    def rules(self, chain: str) -> dict[int, str]:
        """Handle -> text of each rule of a chain, for people; {} where nft cannot tell.

        Only where the learned sets are small: nft reads every element of the table for it.
        """
        if not _PLAIN.fullmatch(chain):  # somebody else's name, that nft would read as something else
            return {}
        with self._lock:
            self._nft.set_json_output(False)
            self._nft.set_handle_output(True)
            try:
                status, output, _ = self._nft.cmd(f"list chain {FAMILY} {TABLE} {chain}")
            finally:
                self._nft.set_json_output(True)
                self._nft.set_handle_output(False)
        if status != 0:
            return {}
        texts: dict[int, str] = {}
        pending: list[str] = []
        for line in str(output).splitlines():
            found = _HANDLE.fullmatch(line)
            if found is None:
                pending.append(line.strip())
                continue
            texts[int(found[2])] = " ".join([*pending, found[1].strip()])
            pending = []
            if found[1].strip().startswith("chain "):  # its own handle
                texts.clear()
        return {handle: re.sub(r"^type .* policy \w+; ", "", text) for handle, text in texts.items()}

    def _command(self, command: str) -> tuple[int, str, str]:
        with self._lock:
            status, output, error = self._nft.cmd(command)
        return status, str(output), str(error)


class FakeNft:
    """Remembers the scripts, and refuses those that contain a word of `refuses`. Its table is there or not, as told."""

    def __init__(self, present: Inventory | None = None, refuses: tuple[str, ...] = ()) -> None:
        self.present = present
        self.refuses = refuses
        self.scripts: list[str] = []

    def check(self, script: str) -> None:
        """See Nft.check."""
        self._refuse(script)

    def run(self, script: str) -> None:
        """See Nft.run."""
        self._refuse(script)
        self.scripts.append(script)

    def _refuse(self, script: str) -> None:
        for word in self.refuses:
            for number, line in enumerate(script.splitlines(), 1):
                if word in line:
                    raise KernelRefused(f"line {number}: refused\n{line}")

    def inventory(self) -> Inventory | None:
        """See Nft.inventory."""
        return self.present

    def interfaces(self) -> frozenset[str]:
        """See Nft.interfaces."""
        return frozenset({"lo"})


@contextmanager
def _file_of(script: str) -> Iterator[str]:
    """A path under which nft can read the script, for as long as the block lasts."""
    descriptor = os.memfd_create("glacic.nft")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(script.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _dry_run(path: str) -> str | None:
    """What nft says against a file, None where nothing. In a context of its own: the Python module has no dry run.

    libnftables(3).
    """
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_set_dry_run(context, ctypes.c_bool(True))
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_filename(context, path.encode()) == 0:
            return None
        return (library.nft_ctx_get_error_buffer(context) or b"").decode("utf-8", "replace")
    finally:
        library.nft_ctx_free(context)


def _objects(output: str, kind: str) -> list[dict[str, Any]]:
    """Our table's objects of this kind in a JSON listing."""
    objects: list[dict[str, Any]] = json.loads(output or '{"nftables": []}')["nftables"]
    found = (entry[kind] for entry in objects if kind in entry)
    return [entry for entry in found if (entry["family"], entry["table"]) == (FAMILY, TABLE)]


def _readable(error: str) -> str:
    """nft's own words, with the script's lines by number."""
    text = _LOCATION.sub(r"line \1, column \2: ", _INCLUDED_FROM.sub("", error)).strip().expandtabs(4)
    if "Operation not permitted" in text:
        return "the kernel refused: changing nftables needs CAP_NET_ADMIN; run as root"
    if len(text) > _MAX_ERRORS:
        text = text[:_MAX_ERRORS] + "\n..."
    return f"the kernel refused the script, nothing was changed:\n{text}"
