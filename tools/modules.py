"""Keeps the table of modules in docs/architecture.md true: each module, its step (its docstring's first sentence),
its lines.

    python tools/modules.py            print the table
    python tools/modules.py --write    put it into docs/architecture.md, between the two marker lines
    python tools/modules.py --check    exit 1 if the file does not hold it
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin -->", "<!-- modules: end -->"


def table() -> str:
    """The table, in the order of packages and file names."""
    rows = ["| module | its step | lines |", "|---|---|---|"]
    total = 0
    for path in sorted(path for ending in ("py", "c", "h") for path in (ROOT / "glacic").rglob(f"*.{ending}")):
        text = path.read_text()
        lines = text.count("\n")
        total += lines
        rows.append(f"| `{path.relative_to(ROOT)}` | {_step(_docstring(path, text))} | {lines} |")
    return "\n".join([*rows, f"| all | | {total} |"])


def _docstring(path: Path, text: str) -> str:
    """What a module says of itself: its docstring, or in C its first comment."""
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    comment = text.partition("/*")[2].partition("*/")[0]
    return "\n".join(line.strip().removeprefix("*").strip() for line in comment.splitlines())


def _step(docstring: str) -> str:
    """The first sentence of it, on one line."""
    words = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z\)\"`])\. ", words)[0].rstrip(".")
    return sentence.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    if arguments not in ([], ["--write"], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if not arguments:
        print(table())
        return 0
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if arguments == ["--check"]:
        if text != wanted:
            print(
                "docs/architecture.md: the table of modules is out of date: python tools/modules.py --write",
                file=sys.stderr,
            )
        return int(text != wanted)
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
