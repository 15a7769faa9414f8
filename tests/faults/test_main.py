"""The command line of `make faults`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import main
from faults.result import Case


class Fine:
    NAME, TITLE, PROMISE, ADVICE, PLACES = "fine", "Fine", "p", "a", ("here",)

    def measure(self) -> Iterator[Case]:
        yield Case(setting="s", kernel="k")


class Broken(Fine):
    NAME, TITLE = "broken", "Broken"

    def measure(self) -> Iterator[Case]:
        yield Case(setting="s", kernel="k", broken=("a promise",))


class Failing(Fine):
    NAME, TITLE = "failing", "Failing"

    def measure(self) -> Iterator[Case]:
        yield Case(setting="first", kernel="k")
        raise RuntimeError("no network")


@pytest.mark.parametrize(("fault", "status"), [(Fine, 0), (Broken, 1), (Failing, 1)])
def test_a_broken_promise_and_a_fault_that_cannot_be_made_end_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Fine], status: int
) -> None:
    monkeypatch.setattr(main, "modules", lambda: [fault()])
    monkeypatch.setattr(main, "KEPT", tmp_path / "reliability")
    monkeypatch.setattr(main, "DOCS", tmp_path)
    monkeypatch.setattr(main, "ROOT", tmp_path)
    monkeypatch.setattr(main.build, "program", lambda _name: Path())
    assert main.main([]) == status
    assert (tmp_path / "reliability" / f"{fault.NAME}.json").exists()  # what came before the failure is kept
    assert f"## {fault.TITLE}" in (tmp_path / "reliability.md").read_text()


def test_every_row_says_what_it_promises_and_where_it_runs() -> None:
    for module in main.modules():
        assert module.TITLE
        assert module.PROMISE.strip()
        assert module.ADVICE.strip()
        assert set(module.PLACES) <= {main.HERE, main.VM}
        assert module.PLACES
    names = [module.NAME for module in main.modules()]
    assert names == [name for name in main.ORDER if name in names]


def test_a_name_that_is_no_fault_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--only", "nothing"])
    assert ended.value.code == 2
