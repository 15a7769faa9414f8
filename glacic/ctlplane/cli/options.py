"""What every command takes, before or after its name: --config, --state-dir, --socket, --json; each also from the
environment.

Also the one place that prints: text from outside is made fit for a terminal here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glacic.config.source import printable

if TYPE_CHECKING:
    from glacic.ctlplane.client import Client

CONFIG = Path("/etc/glacic/glacic.hcl")
STATE_DIR = Path("/var/lib/glacic")
SOCKET = Path("/run/glacic/glacic.sock")


@dataclass(frozen=True, slots=True)
class Options:
    """The common options, after command line and environment."""

    config: Path = CONFIG
    state_dir: Path = STATE_DIR
    socket: Path = SOCKET
    json: bool = False

    def client(self) -> Client:
        """A connection to the service. Raises Unreachable."""
        from glacic.ctlplane.client import Client

        return Client(self.socket)

    def emit(self, document: Any) -> None:
        """Print one JSON document."""
        json.dump(document, sys.stdout, indent=2, ensure_ascii=True)
        sys.stdout.write("\n")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the common options; unset ones leave no trace, so that either side of the command may set them."""
    unset: Any = argparse.SUPPRESS
    group = parser.add_argument_group("common options")
    group.add_argument(
        "-c", "--config", type=Path, metavar="FILE", default=unset, help=f"configuration [GLACIC_CONFIG; {CONFIG}]"
    )
    group.add_argument(
        "--state-dir", type=Path, metavar="DIR", default=unset, help=f"learned flows [GLACIC_STATE_DIR; {STATE_DIR}]"
    )
    group.add_argument(
        "--socket", type=Path, metavar="PATH", default=unset, help=f"control socket [GLACIC_SOCKET; {SOCKET}]"
    )
    group.add_argument("--json", action="store_true", default=unset, help="answer in JSON [GLACIC_JSON=1]")


def options_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Options:
    """The command line wins over the environment, which wins over the defaults."""

    def path(name: str, default: Path) -> Path:
        given = getattr(arguments, name, None) or environment.get(f"GLACIC_{name.upper()}")
        return Path(given) if given else default

    as_json = getattr(arguments, "json", False) or environment.get("GLACIC_JSON", "") not in {"", "0", "false", "no"}
    return Options(
        config=path("config", CONFIG),
        state_dir=path("state_dir", STATE_DIR),
        socket=path("socket", SOCKET),
        json=as_json,
    )


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for a person; wide when the output is no terminal, so that nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=Text(printable(title)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(printable(str(cell))) for cell in row))
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 200, highlight=False).print(drawn)


def say(line: str) -> None:
    """Print one line for a person."""
    print(printable(line))


def warn(line: str) -> None:
    """Print one line for a person beside the answer, on stderr."""
    print(f"glacic: {printable(line)}", file=sys.stderr)
