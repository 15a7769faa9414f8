"""Makes the tables of the HCL parser's grammar in a staged tree, as the parser will look for them where that is used.

    python tools/warm.py STAGE FINAL

The parser keeps its tables in a file beside itself, and takes them only if the names of that file and of the grammar's
are the same as when they were made. So it is told the final names here, and finds the staged files under them. A
service that may not write there could never make them itself, and would need a second more for each start.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any


def main(stage: str, final: str) -> int:
    """See the module's docstring."""
    sys.path.insert(0, stage + final)
    sys.dont_write_bytecode = True
    import hcl2
    import lark.lark

    def staged(name: Any) -> str:
        return stage + str(name) if str(name).startswith(f"{final}/") else str(name)

    def opened(name: Any, *args: Any, **named: Any) -> IO[Any]:
        return Path(staged(name)).open(*args, **named)

    class Staged:
        """What lark does with files, on the staged ones."""

        open = staticmethod(opened)
        exists = staticmethod(lambda name: Path(staged(name)).exists())

    lark.lark.open = opened
    lark.lark.FS = Staged
    parser = sys.modules["hcl2.parser"]
    parser.__file__ = f"{final}/hcl2/parser.py"
    parser.PARSER_FILE = Path(final, "hcl2", ".lark_cache.bin")
    hcl2.parses_to_tree("warm = true\n")
    if not Path(staged(parser.PARSER_FILE)).exists():
        print(f"the HCL parser made no {staged(parser.PARSER_FILE)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
