"""The lab, the telling: a Story as tables for a person, as JSON, and as a picture for the README."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glacic.lab.scenario import Story

if TYPE_CHECKING:
    from rich.console import Console


def show(story: Story, console: Console) -> None:
    """Print the story."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *columns: str) -> Table:
        return Table(*columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)

    firsts = table(
        "The first connection of a new flow", "mode", "first SYN", "retransmissions", "connected after", "hook"
    )
    for first in story.firsts:
        kept = first.result.ok and first.result.retransmits == 0
        firsts.add_row(
            first.mode,
            Text("kept", style="bold green") if kept else Text("lost", style="bold red"),
            str(first.result.retransmits),
            f"{first.result.connect_ms:,.1f} ms",
            Text(first.hook),
        )
    console.print(firsts)
    steps = table("What came after it", "who", "does", "what happens", "measured")
    for step in story.steps:
        steps.add_row(step.who, step.what, step.outcome, step.figure)
    console.print(steps)
    learned = table("What was learned (glacic flows list)", "id", "policy", "source", "flow", "state", "packets", "by")
    for flow in story.learned:
        learned.add_row(
            str(flow["id"]),
            flow["policy"],
            flow["source"],
            f"{flow['protocol']}/{flow['port']}",
            flow["state"],
            str(flow["packets"]),
            flow["origin"],
        )
    console.print(learned)
    inline = story.firsts[-1].result
    verdict = "It kept the first packet." if inline.ok and inline.retransmits == 0 else "It lost the first packet."
    console.print(Text(f"{verdict} Linux {story.kernel}.", style="bold"))


def as_dict(story: Story) -> dict[str, Any]:
    """JSON-ready."""
    return asdict(story)


def draw(story: Story, path: Path) -> None:
    """The same tables as an SVG picture, complete in itself: the viewer's own monospace font, nothing fetched."""
    import io
    import re

    from rich.console import Console

    console = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    show(story, console)
    path.write_text(re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make demo"), flags=re.DOTALL))
