"""One target for a while, in this process; main.py starts it. What it prints is for its log.

    run.py atheris|chance NAME SECONDS FOLDER

What is found is written into FOLDER as crash-*, as libFuzzer does it, and the number of inputs is printed last.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from fuzz.mutation import inputs  # noqa: E402 -- found by the line above
from fuzz.targets import TARGETS, Target  # noqa: E402

INPUT_S = 20  # an input that takes longer is a finding
MEMORY_MB = 3_000


def by_coverage(target: Target, seconds: int, folder: Path) -> int:
    """Led by atheris, which ends the process."""
    import atheris  # type: ignore[import-untyped]  # it has no types

    with atheris.instrument_imports(include=["glacic", "fuzz"], enable_loader_override=False):
        making = target.check()
    options: dict[str, object] = {
        "max_total_time": seconds,
        "max_len": target.most,
        "timeout": INPUT_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    if words := target.dictionary():
        options["dict"] = words
    arguments = [f"-{name}={value}" for name, value in options.items()]
    seeds = str(target.seeds()[0].parent)
    with making as check:
        atheris.Setup([sys.argv[0], *arguments, str(folder / "corpus"), seeds], check)
        atheris.Fuzz()
    return 0


def by_chance(target: Target, seconds: int, folder: Path) -> int:
    """Mutations of the seeds."""
    seeds = [path.read_bytes() for path in target.seeds()]
    count, found, ends = 0, 0, time.monotonic() + seconds
    with target.check() as check:
        for data in inputs(seeds, target.words(), target.most, random.Random()):
            if found or time.monotonic() > ends:
                break
            count += 1
            try:
                check(data)
            except Exception:
                traceback.print_exc()
                (folder / f"crash-{sha256(data).hexdigest()[:16]}").write_bytes(data)
                found = 1
    print(f"stat::number_of_executed_units: {count}")
    return found


def main() -> int:
    """See the module's own text."""
    engine, name, seconds, folder = sys.argv[1:]
    target = next(one for one in TARGETS if one.name == name)
    return {"atheris": by_coverage, "chance": by_chance}[engine](target, int(seconds), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
