"""The fuzzer's command line. Run it with the interpreter that Glacic is installed for; as root, kernels are asked, too:

    python fuzz/main.py                        every target for a minute, two at a time
    python fuzz/main.py --seconds 600 hcl      one target for ten
    python fuzz/main.py --record               puts the results into docs/fuzzing.md as well
    python fuzz/main.py --replay hcl FILE      one input, to see what a finding is

Each target runs in a process of its own, led by coverage where atheris is installed, and by chance where it is not.
Inputs that reach something new are kept in build/fuzz/NAME/corpus for the next run; a finding ends its target's run and
stays in build/fuzz/NAME. Exit 1 where there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from fuzz.targets import TARGETS, Target  # noqa: E402 -- found by the line above

BUILD = ROOT / "build" / "fuzz"
DOCUMENT = ROOT / "docs" / "fuzzing.md"
BEGIN, END = "<!-- fuzzing: begin -->", "<!-- fuzzing: end -->"
SECONDS = 60
GRACE_S = 120  # for a process to start and to end, beyond its time
_INPUTS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of one target came to. findings: files, one for each input that broke a promise."""

    target: str
    promise: str
    engine: str
    seconds: int
    inputs: int
    findings: tuple[str, ...]


def fuzz(target: Target, seconds: int) -> Result:
    """Run one target for a while."""
    engine = "atheris" if importlib.util.find_spec("atheris") else "chance"
    folder = BUILD / target.name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    before = set(_findings(folder))
    command = [sys.executable, str(Path(__file__).with_name("run.py")), engine, target.name, str(seconds), str(folder)]
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        status = subprocess.run(  # noqa: S603 - our own interpreter and file
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds + GRACE_S, check=False
        ).returncode
    text = (folder / "log").read_text(errors="replace")
    inputs = _INPUTS.findall(text)
    found = [name for name in _findings(folder) if name not in before]
    if (status or not inputs) and not found:
        found = [str(folder / "log")]  # it ended before it began, or without a word
    spent = round(time.monotonic() - began)
    return Result(target.name, target.promise, engine, spent, int(inputs[-1]) if inputs else 0, tuple(found))


def _findings(folder: Path) -> list[str]:
    kinds = ("crash-*", "timeout-*", "oom-*", "leak-*")
    return sorted(str(path) for kind in kinds for path in folder.glob(kind))


def keep(results: Sequence[Result]) -> list[Result]:
    """Write the results into build/fuzz/results.json, beside what other targets came to earlier; all of them."""
    path = BUILD / "results.json"
    earlier = json.loads(path.read_text()) if path.exists() else []
    known = {row["target"]: Result(**{**row, "findings": tuple(row["findings"])}) for row in earlier}
    known |= {one.target: one for one in results}
    found = [known[target.name] for target in TARGETS if target.name in known]
    BUILD.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    return found


def table(results: Sequence[Result]) -> str:
    """The results as a table of docs/fuzzing.md."""
    rows = ["| target | what must hold | seconds | inputs tried | findings |", "|---|---|---|---|---|"]
    for one in results:
        rows.append(f"| `{one.target}` | {one.promise} | {one.seconds} | {one.inputs:,} | {len(one.findings)} |")
    return "\n".join(rows)


def record(results: Sequence[Result], day: str) -> None:
    """Put the table into docs/fuzzing.md, between the two marker lines."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    engine = "atheris, led by coverage" if results[0].engine == "atheris" else "chance alone"
    text = f"The last run, {day}, by {engine}, two targets at a time on two cores:\n\n{table(results)}"
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's own text."""
    parser = argparse.ArgumentParser(
        prog="fuzz/main.py", description="Try inputs on whatever reads bytes from outside."
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(one.name for one in TARGETS)}"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default %(default)s)")
    parser.add_argument("--record", action="store_true", help="put the results into docs/fuzzing.md")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="try this one input on the targets, and nothing else"
    )
    options = parser.parse_args(arguments)
    chosen = [one for one in TARGETS if one.name in options.targets or not options.targets]
    if unknown := set(options.targets) - {one.name for one in TARGETS}:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.replay:
        for target in chosen:
            with target.check() as check:
                check(options.replay.read_bytes())
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda target: fuzz(target, options.seconds), chosen))
    for one in results:
        print(
            f"{one.target:10} {one.seconds:5} s {one.inputs:12,} inputs  {len(one.findings)} findings  ({one.engine})"
        )
        for path in one.findings:
            print(f"           {path}")
    known = keep(results)
    if options.record:
        record(known, datetime.now(UTC).date().isoformat())
    return 1 if any(one.findings for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
