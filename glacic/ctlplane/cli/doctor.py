"""Try what this kernel and machine can do, in a scratch namespace: what each finding is needed for, and how to get
it."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic doctor`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """0 where everything works, else 1."""
    from glacic.ctlplane import probes

    findings = probes.examine()
    missing = [finding for finding in findings if not finding.ok]
    if options.json:
        options.emit({"ok": not missing, "findings": probes.as_rows(findings)})
        return 1 if missing else 0
    columns = ("what", "works", "detail", "needed for", "how to get it")
    rows = [(f.name, "yes" if f.ok else "NO", f.detail, f.needed_for, f.remedy) for f in findings]
    table("doctor", columns, rows)
    say("everything works" if not missing else f"missing: {', '.join(finding.name for finding in missing)}")
    return 1 if missing else 0
