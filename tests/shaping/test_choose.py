"""Which engine holds a limit, and the reason people are given."""

from __future__ import annotations

from glacic.config.model import LimitEngine
from glacic.shaping.choose import NFT_ALONE, Available, Chosen, available, choose
from glacic.shaping.engine import DOWNLOAD, UPLOAD

BOTH: Available = {**NFT_ALONE, ("bpf", UPLOAD): "", ("bpf", DOWNLOAD): ""}


def test_auto_takes_nft_where_it_works() -> None:
    assert choose(LimitEngine.AUTO, BOTH) == Chosen(
        "nft", "nft", "auto: nft works here, and takes no interface and no program"
    )


def test_auto_chooses_for_each_direction() -> None:
    half = {**BOTH, ("nft", DOWNLOAD): "nft_socket finds no socket on input"}
    chosen = choose(LimitEngine.AUTO, half)
    assert (chosen.upload, chosen.download) == ("nft", "bpf")
    assert chosen.why == "auto: upload by nft, download by bpf, the first that works here"


def test_what_was_asked_for_is_what_it_is() -> None:
    assert choose(LimitEngine.BPF, BOTH) == Chosen("bpf", "bpf", "asked for")


def test_what_is_asked_for_and_was_not_tried_shows_itself_what_it_can() -> None:
    untried = available([], ["nft", "bpf"])
    assert choose(LimitEngine.BPF, untried) == Chosen("bpf", "bpf", "asked for")
    assert choose(LimitEngine.AUTO, untried).upload == "nft"
    untried = {**untried, ("nft", UPLOAD): "broken", ("bpf", DOWNLOAD): "no bpf(2)"}
    assert choose(LimitEngine.AUTO, untried).upload == ""  # auto takes what was seen to work
    assert choose(LimitEngine.BPF, untried) == Chosen("bpf", "", "bpf: no bpf(2)")


def test_what_is_missing_is_said_and_nothing_else_put_in_its_place() -> None:
    assert choose(LimitEngine.BPF, NFT_ALONE) == Chosen("", "", "bpf: not in this service")
    without = {("nft", UPLOAD): "no nft_socket", ("nft", DOWNLOAD): "no nft_socket"}
    chosen = choose(LimitEngine.AUTO, without)
    assert (chosen.upload, chosen.download) == ("", "")
    assert chosen.why == "no engine of this kernel can: nft: no nft_socket; bpf: not in this service"
    half = choose(LimitEngine.NFT, {("nft", UPLOAD): "", ("nft", DOWNLOAD): "broken"})
    assert half == Chosen("nft", "", "nft: broken")


def test_auto_never_takes_an_interface() -> None:
    shaping: Available = {("shape", UPLOAD): "", ("shape", DOWNLOAD): "", ("police", UPLOAD): ""}
    assert choose(LimitEngine.AUTO, shaping).upload == ""


def test_what_an_earlier_probe_found_is_what_there_is() -> None:
    rows = [
        {"engine": "nft", "direction": UPLOAD, "available": True, "missing": "", "per_cgroup": True, "accuracy": 0.98},
        {"engine": "nft", "direction": DOWNLOAD, "available": False, "missing": "no socket on input"},
        {"engine": "bpf", "direction": UPLOAD, "available": False, "missing": None},
        {"engine": "shape", "direction": UPLOAD, "available": True, "missing": ""},
    ]
    assert available(rows, ["nft", "bpf"]) == {
        ("nft", UPLOAD): "",
        ("nft", DOWNLOAD): "no socket on input",
        ("bpf", UPLOAD): "does not work here",
        ("bpf", DOWNLOAD): "not tried here yet; as root, glacic limits engines --keep does",
    }
    assert available([], ["nft"]) == NFT_ALONE
