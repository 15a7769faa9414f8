"""Learning is switched on and off, per policy, for a time, and stays so across restarts."""

from __future__ import annotations

import pytest

from glacic.errors import GlacicError
from glacic.learning.switch import ALL, BY_FILE, NS_PER_S, Learning, LearningRow, LearningSwitch, SavedLearning

S = 1_000_000_000
HOUR = 3600
NAMES = ("DROP_INPUT", "lan_wan", "iot_wan")


def restored(
    saved: SavedLearning | None = None,
    *,
    file_mode: bool = True,
    learn_for_s: int | None = None,
    policies: tuple[str, ...] = NAMES,
    now_ns: int = 0,
) -> LearningSwitch:
    return LearningSwitch.restore(saved, file_mode=file_mode, learn_for_s=learn_for_s, policies=policies, now_ns=now_ns)


@pytest.mark.parametrize("mode", [True, False])
def test_a_fresh_switch_does_as_the_file_says(mode: bool) -> None:
    switch = restored(file_mode=mode)
    assert {switch.is_on(name, 5 * S) for name in NAMES} == {mode}
    assert switch.status(5 * S) == {name: Learning(mode, None, BY_FILE) for name in NAMES}


def test_one_policy_is_switched_and_the_others_stay() -> None:
    switch = restored(file_mode=False)
    switch.on(["iot_wan"], None, "user ann", 1 * S)
    assert [switch.is_on(name, 2 * S) for name in NAMES] == [False, False, True]
    switch.off(["iot_wan"], "user ann", 3 * S)
    assert not switch.is_on("iot_wan", 4 * S)
    assert switch.status(4 * S)["iot_wan"] == Learning(False, None, "user ann")


def test_no_names_means_all_and_overrides_what_was_said_of_one() -> None:
    switch = restored()
    switch.off(["lan_wan"], "user ann", 1 * S)
    switch.on([], None, "user bob", 2 * S)
    assert all(switch.is_on(name, 3 * S) for name in NAMES)
    switch.off([], "user bob", 4 * S)
    assert not any(switch.is_on(name, 5 * S) for name in NAMES)


def test_an_unknown_name_changes_nothing_and_the_known_ones_are_told() -> None:
    switch = restored()
    with pytest.raises(GlacicError, match=r"'lan_wlan'.*DROP_INPUT, lan_wan, iot_wan"):
        switch.off(["lan_wan", "lan_wlan"], "user ann", 1 * S)
    assert switch.is_on("lan_wan", 2 * S)


def test_a_given_time_ends_learning_to_the_nanosecond() -> None:
    switch = restored(file_mode=False)
    switch.on(["lan_wan"], 10 * S, "user ann", 1 * S)
    assert switch.status(1 * S)["lan_wan"] == Learning(True, 10 * S, "user ann")
    assert switch.is_on("lan_wan", 10 * S - 1)
    assert not switch.is_on("lan_wan", 10 * S)
    assert switch.status(10 * S)["lan_wan"] == Learning(False, None, "user ann")


def test_learn_for_counts_from_the_moment_learning_was_switched_on() -> None:
    switch = restored(learn_for_s=24 * HOUR, now_ns=100 * S)
    assert switch.is_on("lan_wan", (100 + 24 * HOUR) * S - 1)
    assert not switch.is_on("lan_wan", (100 + 24 * HOUR) * S)
    switch.on(["lan_wan"], None, "user ann", (200 + 24 * HOUR) * S)
    assert switch.is_on("lan_wan", (199 + 48 * HOUR) * S)
    assert not switch.is_on("iot_wan", (199 + 48 * HOUR) * S)


def test_a_given_time_is_stronger_than_learn_for() -> None:
    switch = restored(file_mode=False, learn_for_s=HOUR)
    switch.on([], 3 * HOUR * S, "user ann", 0)
    assert switch.is_on("lan_wan", 2 * HOUR * S)


class TestARestart:
    def test_keeps_what_was_switched(self) -> None:
        switch = restored(file_mode=False)
        switch.on(["iot_wan"], 50 * S, "user ann", 1 * S)
        again = restored(switch.saved(), file_mode=False, now_ns=20 * S)
        assert again.status(21 * S) == switch.status(21 * S)
        assert again.is_on("iot_wan", 49 * S)
        assert not again.is_on("iot_wan", 50 * S)

    def test_does_not_begin_learn_for_anew(self) -> None:
        saved = restored(learn_for_s=HOUR).saved()
        again = restored(saved, learn_for_s=HOUR, now_ns=(HOUR - 1) * S)
        assert again.is_on("lan_wan", (HOUR - 1) * S)
        assert not again.is_on("lan_wan", HOUR * S)

    def test_counts_a_changed_learn_for_from_the_old_start(self) -> None:
        saved = restored(learn_for_s=HOUR).saved()
        assert restored(saved, learn_for_s=3 * HOUR, now_ns=2 * HOUR * S).is_on("lan_wan", 2 * HOUR * S)
        assert restored(saved, learn_for_s=None, now_ns=9 * HOUR * S).is_on("lan_wan", 9 * HOUR * S)

    @pytest.mark.parametrize("mode", [True, False])
    def test_forgets_what_was_switched_when_learning_mode_in_the_file_has_changed(self, mode: bool) -> None:
        switch = restored(file_mode=mode)
        switch.on(["iot_wan"], None, "user ann", 1 * S)
        switch.off(["lan_wan"], "user ann", 1 * S)
        again = restored(switch.saved(), file_mode=not mode, now_ns=9 * S)
        assert again.status(10 * S) == {name: Learning(not mode, None, BY_FILE) for name in NAMES}
        assert again.saved().rows == (LearningRow(ALL, not mode, 9 * S, None, BY_FILE),)

    def test_gives_a_new_policy_what_holds_for_all(self) -> None:
        switch = restored(file_mode=True)
        switch.off([], "user ann", 1 * S)
        again = restored(switch.saved(), policies=(*NAMES, "guest_wan"))
        assert not again.is_on("guest_wan", 2 * S)

    def test_remembers_a_policy_that_is_not_in_the_file_for_a_while(self) -> None:
        switch = restored()
        switch.off(["iot_wan"], "user ann", 1 * S)
        without = restored(switch.saved(), policies=("lan_wan",))
        assert list(without.status(2 * S)) == ["lan_wan"]
        assert not restored(without.saved()).is_on("iot_wan", 3 * S)


def test_a_switch_from_the_future_counts_from_now() -> None:
    """The clock was set back while nobody ran: learning does not go on for years."""
    row = LearningRow("", True, 1000 * NS_PER_S, 1060 * NS_PER_S, "user root")
    switch = LearningSwitch.restore(
        SavedLearning(True, (row,)), file_mode=True, learn_for_s=None, policies=["a"], now_ns=10 * NS_PER_S
    )
    assert [switch.is_on("a", second * NS_PER_S) for second in (10, 69, 70)] == [True, True, False]
