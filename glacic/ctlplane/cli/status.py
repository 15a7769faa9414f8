"""Say whether the service is running and in force: 0 only once the hooks and readers are in place."""

from __future__ import annotations

import argparse

from glacic.ctlplane.cli.options import Options, add_common, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`glacic status`."""
    add_common(parser)
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, options: Options) -> int:
    """0 running, 1 starting or degraded, 3 unreachable."""
    with options.client() as service:
        status = service.call("status")
    if options.json:
        options.emit(status)
    else:
        say(f"{status['state']}{': ' + status['reason'] if status['reason'] else ''}")
        for what in status["recovered"]:
            say(f"  recovered {what}")
        say(f"  config    {status['config']}")
        ruleset = "in force" if status["applied"] else "not yet" if status["applies"] else "somebody else's"
        say(f"  ruleset   {ruleset}")
        say(f"  mode      {status['mode']}")
        say(f"  learning  {status['learning']}")
        if status["note"]:
            say(f"  note      {status['note']}")
        if status["panic"]:
            say("  panic     management and nothing else; `glacic panic off` ends it")
        revision = status["revision"] if status["revision"] is not None else "none"
        trial = status["trial"]
        waits = f", on trial for {trial['seconds_left']} s more: `glacic confirm` keeps it" if trial else ""
        say(f"  revision  {revision}{waits}")
        say(f"  worker    pid {status['worker_pid']}, started {status['worker_starts']} time(s)")
        if status["fail_open_connections"]:
            say(f"  let in    {status['fail_open_connections']} connection(s), by a fail mode: glacic connections")
        say(f"  since     {status['since']}")
        for change in status["drift"]:
            done = ", put right" if change["restored"] else ""
            say(f"  changed   {change['at']} by {change['by']}: {change['what']}{done}")
    return 0 if status["state"] == "running" else 1
