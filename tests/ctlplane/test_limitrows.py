"""What may be asked about limits, and how it is answered. Arguments come from outside: each is checked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glacic.config.model import Config, DefaultLimit, Limit, LimitEngine, LimitKind, Traffic
from glacic.config.rates import RATE_MAX
from glacic.ctlplane import limiting
from glacic.ctlplane.limiting import Limiting
from glacic.ctlplane.limitrows import CANNOT, CANNOT_BY_CGROUP, CANNOT_OF, MAX_LIMITS, LimitRequests
from glacic.errors import GlacicError, UsageError
from glacic.lab.cgroups import Slice, hierarchy
from glacic.shaping import probe
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.choose import NFT_ALONE, Available
from glacic.shaping.engine import Counted, Item


@pytest.fixture(autouse=True)
def priority_of_the_tests_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "NICE", os.getpriority(os.PRIO_PROCESS, 0))


BACKUP = Limit(
    name="backup",
    kind=LimitKind.UNIT,
    target="backup.service",
    upload=1 << 20,
    traffic=Traffic.INTERNET,
    description="the nightly one",
)


def ask(
    do: str,
    *,
    limits: tuple[Limit, ...] = (BACKUP,),
    default: DefaultLimit | None = None,
    able: Available = NFT_ALONE,
    state_dir: Path = Path("/proc/no/such"),
    **args: Any,
) -> Any:
    """One request to a manager with no engine and nothing that runs."""

    async def tell() -> Any:
        limiting = Limiting({}, able, lambda: Hierarchy(Path("/proc/no/such")))
        await limiting.configure(Config(path=Path("x"), limits=limits, default_limit=default))
        answer = await getattr(LimitRequests(limiting, state_dir), do)(args, "user root")
        limiting.close()
        return answer

    return asyncio.run(tell())


class Nothing:
    """An engine that has all it is told."""

    name = "nft"

    def put(self, items: Sequence[Item]) -> None:
        """Nothing."""

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        return {}

    def adopt(self) -> None:
        """Nothing."""

    def remove(self) -> None:
        """Nothing."""


@pytest.fixture
def system() -> Iterator[Slice]:
    with hierarchy() as found, Slice(found) as made:
        yield made


def test_a_row_says_everything_both_ways() -> None:
    answer = ask("list", default=DefaultLimit(download=1_000_000, engine=LimitEngine.NFT))
    (row,) = answer["limits"]
    assert row == {
        "name": "backup",
        "kind": "unit",
        "target": "backup.service",
        "upload": 1 << 20,
        "download": None,
        "upload_text": "1 MiB/s (8.39 Mbit/s)",
        "download_text": None,
        "engine": "auto",
        "engine_upload": "nft",
        "engine_download": None,
        "why": "backup.service does not run",
        "traffic": "internet",
        "interface": None,
        "description": "the nightly one",
        "origin": "config",
        "state": "waiting",
        "cgroup": None,
        "cgroup_id": None,
        "level": None,
        **{
            f"{what}_{direction}": 0
            for direction in ("upload", "download")
            for what in ("bytes", "packets", "dropped_bytes", "dropped_packets")
        },
    }
    assert answer["default"] == {
        "per": "unit",
        "upload": None,
        "download": 1_000_000,
        "upload_text": None,
        "download_text": "977 KiB/s (8 Mbit/s)",
        "engine": "nft",
        "traffic": "all",
        "interface": None,
    }
    assert answer["mount"] == "/proc/no/such"
    assert answer["trouble"] == ""


def test_a_limit_that_no_engine_can_hold_says_why_and_waits() -> None:
    limit = Limit(name="b", kind=LimitKind.UNIT, target="b.service", upload=1, engine=LimitEngine.BPF)
    (row,) = ask("list", limits=(limit,))["limits"]
    assert (row["state"], row["why"], row["engine_upload"]) == ("waiting", "bpf: not in this service", None)


def test_show_says_what_a_limit_cannot_do() -> None:
    cannot = ask("show", name="backup")["cannot"]
    assert any("socket-activated" in sentence for sentence in cannot)
    assert any("open before" in sentence for sentence in cannot)
    assert any("forwarded" in sentence for sentence in cannot)
    assert any("ICMP" in sentence for sentence in cannot)  # nft's own


def test_show_says_what_the_engine_that_holds_a_limit_cannot_do() -> None:
    every = {(engine, way): "" for engine in ("nft", "bpf", "shape", "police") for way in ("upload", "download")}

    def cannot(engine: str, interface: str = "eth0") -> str:
        limit = replace(BACKUP, engine=LimitEngine(engine), interface=interface, traffic=Traffic.ALL)
        return "\n".join(ask("show", limits=(limit,), able=every, name="backup")["cannot"])

    assert "not this cgroup alone" in cannot("police")
    assert "has sent nothing on" in cannot("shape")
    assert "ICMP" not in cannot("bpf")
    assert "thrown away, not delayed" in cannot("bpf")
    assert "thrown away" not in cannot("shape")
    assert "socket-activated" not in cannot("police")  # all of the interface is limited, whose socket it ever is
    assert "loopback" in cannot("police")


def test_what_limits_cannot_do_is_in_the_docs_to_the_letter() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    cells = (line.strip("| ").split(" | ") for line in docs.splitlines() if line.startswith("| "))
    rows = {row[1]: row[0] for row in cells if len(row) == 2}
    by_cgroup = "`nft`, `bpf`, `shape`"
    for sentence in CANNOT:
        assert rows[sentence] == "all"
    for sentence in CANNOT_BY_CGROUP:
        assert rows[sentence] == by_cgroup
    for engine, sentences in CANNOT_OF.items():
        for sentence in sentences:
            assert f"`{engine}`" in rows[sentence]


def test_set_changes_what_is_said_and_keeps_the_rest() -> None:
    row = ask("set", name="backup", download=5)
    assert (row["upload"], row["download"], row["traffic"], row["target"]) == (1 << 20, 5, "internet", "backup.service")
    assert (row["origin"], row["description"]) == ("runtime", "the nightly one")
    row = ask("set", name="backup", upload=None, download=5)
    assert row["upload"] is None
    row = ask("set", name="new", kind="cgroup", target="a/b", upload=7, engine="nft", traffic="local")
    assert (row["kind"], row["target"], row["engine"], row["traffic"]) == ("cgroup", "a/b", "nft", "local")


def test_clear_answers_with_the_name_and_knows_what_there_is() -> None:
    assert ask("clear", name="backup") == {"cleared": "backup"}
    with pytest.raises(GlacicError, match="no such limit: other; `glacic limits list` shows them"):
        ask("clear", name="other")
    with pytest.raises(GlacicError, match="no such limit"):
        ask("show", name="other")


def test_a_name_that_is_none_is_told_the_one_that_is_meant() -> None:
    for do in ("show", "clear"):
        with pytest.raises(GlacicError, match='no such limit: bakup; did you mean "backup"'):
            ask(do, name="bakup")


def test_a_limit_is_known_by_what_it_limits_too() -> None:
    assert ask("show", name="backup.service")["name"] == "backup"
    assert ask("clear", name="backup.service") == {"cleared": "backup"}


def test_what_the_default_limit_makes_is_shown_and_cannot_be_cleared_alone(system: Slice) -> None:
    system.make("x.service")

    async def tell() -> None:
        limiting = Limiting({"nft": Nothing()}, NFT_ALONE, lambda: Hierarchy(system.place("")))
        await limiting.configure(Config(path=Path("x"), default_limit=DefaultLimit(download=1_000_000)))
        requests = LimitRequests(limiting, Path("/proc/no/such"))
        try:
            for name in ("default:x.service", "x.service"):
                assert (await requests.show({"name": name}, "user root"))["origin"] == "default"
                with pytest.raises(GlacicError, match=r"default:x\.service is what default_limit makes: set one for x"):
                    await requests.clear({"name": name}, "user root")
        finally:
            limiting.close()

    asyncio.run(tell())


def test_engines_and_watch_answer_in_rows(tmp_path: Path) -> None:
    assert ask("engines")["engines"][0] == {
        "engine": "nft",
        "direction": "upload",
        "available": True,
        "missing": None,
        "per_cgroup": True,
        "accuracy": None,
    }
    probe.keep(
        tmp_path / probe.FILE,
        [
            {
                "engine": "nft",
                "direction": "upload",
                "available": True,
                "missing": "",
                "per_cgroup": True,
                "accuracy": 0.98,
            }
        ],
    )
    assert [row["accuracy"] for row in ask("engines", state_dir=tmp_path)["engines"]] == [0.98, None]
    watched = ask("watch")
    assert watched["limits"] == []  # nothing runs
    assert watched["at_s"] > 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "which limit"),
        ({"name": ""}, "which limit"),
        ({"name": 7}, "name must be plain text"),
        ({"name": "a\nb"}, "name must be plain text"),
        ({"name": "\udcff"}, "name must be plain text"),
        ({"name": "x" * 200}, "at most 128"),
        ({"name": "new", "upload": 1}, "what is to be limited"),
        ({"name": "new", "target": "a.service"}, "limits nothing"),
        ({"name": "backup", "upload": 0}, "limits nothing"),
        ({"name": "backup", "upload": -1}, "upload must be a whole number"),
        ({"name": "backup", "upload": True}, "upload must be a whole number"),
        ({"name": "backup", "upload": "5 mbit"}, "upload must be a whole number"),
        ({"name": "backup", "download": RATE_MAX + 1}, "download must be a whole number"),
        ({"name": "backup", "kind": "pod"}, "kind must be one of unit, slice, cgroup"),
        ({"name": "backup", "kind": ["unit"]}, "kind must be one of"),
        ({"name": "backup", "engine": "magic"}, "engine must be one of auto"),
        ({"name": "backup", "traffic": "some"}, "traffic must be one of all"),
        ({"name": "backup", "colour": "red"}, "a limit has no 'colour'"),
        ({"name": "default:x.service", "target": "x.service", "upload": 1}, "a bucket that default_limit makes"),
        ({"name": "backup", "kind": "slice"}, "is no slice"),
        ({"name": "backup", "target": "backup"}, "is not the name of a unit: .*backup.service"),
        ({"name": "backup", "kind": "cgroup", "target": "/a"}, "is absolute"),
        ({"name": "backup", "kind": "cgroup", "target": "a/../b"}, "leads out of the hierarchy"),
        ({"name": "backup", "kind": "cgroup", "target": "a//b"}, "is not a plain path"),
        ({"name": "backup", "kind": "cgroup", "target": 'a"b'}, "nftables has no way to write it"),
        ({"name": "backup", "interface": "eth0"}, "interface cannot apply to engine auto"),
        ({"name": "backup", "engine": "shape", "interface": "eth*"}, "stands for several interfaces"),
        ({"name": "backup", "engine": "shape", "upload": 1000}, "engine shape cannot hold less than 1 KiB/s"),
        ({"name": "backup", "engine": "police", "interface": "eth0"}, 'traffic = "internet" cannot apply'),
        ({"name": "backup", "target": "x" * 2000}, "at most 1024"),
        ({"name": "backup", "engine": "police"}, "engine police needs interface"),
    ],
)
def test_what_is_no_limit_is_refused_in_words(args: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ask("set", **args)


def test_there_is_an_end_to_what_can_be_set() -> None:
    many = tuple(
        Limit(name=f"l{number}", kind=LimitKind.UNIT, target=f"u{number}.service", upload=1)
        for number in range(MAX_LIMITS)
    )
    with pytest.raises(UsageError, match="limits already"):
        ask("set", limits=many, name="one more", target="x.service", upload=1)
    assert ask("set", limits=many, name="l7", upload=2)["upload"] == 2
