"""The doctor: what this machine has is found, what is missing is named, the caller's namespace is left alone."""

from __future__ import annotations

import pytest

from glacic.ctlplane import probes
from glacic.lab.net import Network


def findings() -> dict[str, probes.Finding]:
    return {finding.name: finding for finding in probes.examine()}


def test_what_the_tests_here_use_is_found() -> None:
    found = findings()
    for name in ("rights", "libnftables", "NetfilterQueue", "SQLite", "nf_tables", "nft log", "learned sets"):
        assert found[name].ok, found[name]
        assert found[name].needed_for


def test_the_queue_statement_is_tried_and_not_guessed() -> None:
    from glacic.lab import vm

    assert findings()["nft queue"].ok is not vm.needed()


def test_what_cannot_be_tried_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        raise OSError("Operation not permitted")

    table, other = (probes._Probe(name, "x", "y", refused) for name in ("nf_tables", "nft flowtable"))
    monkeypatch.setattr(probes, "_INSIDE", (table, other))
    assert not probes.lacks("nft flowtable")
    monkeypatch.setattr(probes, "_INSIDE", (probes._Probe("nf_tables", "x", "y", lambda: "loads"), other))
    assert probes.lacks("nft flowtable")


def test_what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise OSError("No such file or directory")

    probe = probes._Probe("x", "everything", "a kernel with CONFIG_X", missing)
    monkeypatch.setattr(probes, "_INSIDE", (probe,))
    found = findings()["x"]
    assert (found.ok, found.detail, found.remedy) == (False, "No such file or directory", "a kernel with CONFIG_X")


def test_the_callers_namespace_is_left_alone() -> None:
    with Network() as net:
        host = net.host("a")
        host.run(["nft", "add table inet mine"])
        host.python("from glacic.ctlplane import probes; assert probes.examine()")
        assert host.run(["nft", "list", "ruleset"]).stdout.split() == ["table", "inet", "mine", "{", "}"]
