"""What was learned is found again: by key, by id, in lists, in pages, with its history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.errors import StoreError
from glacic.learning import store as store_module
from glacic.learning.cache import MAX_ADDRESSES, Batch, Seen, Written
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition, Why
from glacic.learning.store import FlowFilter, Store
from glacic.learning.switch import LearningRow, SavedLearning

LAPTOP, CAMERA = b"\x02\xaa\0\0\0\x01", b"\x02\xbb\0\0\0\x02"
SERVER = bytes([192, 0, 2, 7])
ALLOWED, PENDING, DENIED, IGNORED = FlowState.ALLOWED, FlowState.PENDING, FlowState.DENIED, FlowState.IGNORED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "flows.db") as store:
        yield store


def key(port: int = 443, source: bytes = LAPTOP, policy: str = "lan_wan", destination: bytes = b"") -> FlowKey:
    return FlowKey(policy, source, 6, port, destination)


def written(flow: FlowKey, state: FlowState = ALLOWED, origin: str = "tofu", packets: int = 1, at: int = 5) -> Written:
    return Written(flow, state, at, at, packets, origin)


def add(store: Store, *flows: Written) -> None:
    store.write(Batch(added=list(flows)))


class TestAFlow:
    def test_is_found_as_it_was_written(self, store: Store) -> None:
        flow = FlowKey("lan \U0001f9ca wan", LAPTOP, 17, 53, SERVER)
        add(store, Written(flow, DENIED, 3, 7, 2, "user"))
        found = store.find(flow)
        assert found == Flow(key=flow, state=DENIED, first_seen_ns=3, last_seen_ns=7, packets=2, origin="user", id=1)
        assert store.get(1) == found
        assert store.find(flow._replace(destination=b"")) is None
        assert store.get(2) is None

    def test_adds_up_its_packets(self, store: Store) -> None:
        add(store, written(key(), packets=1, at=5))
        store.write(Batch(seen=[Seen(key(), 9, 4)]))
        store.write(Batch(seen=[Seen(key(), 8, 2)]))  # a clock may go back, what was last seen does not
        found = store.find(key())
        assert found is not None
        assert (found.packets, found.first_seen_ns, found.last_seen_ns) == (7, 5, 9)

    def test_changes_its_state_and_keeps_its_id(self, store: Store) -> None:
        add(store, written(key(), PENDING, "traffic"))
        store.write(Batch(changed=[Written(key(), ALLOWED, 5, 8, 0, "user")]))
        assert store.get(1) == Flow(
            key=key(), state=ALLOWED, first_seen_ns=5, last_seen_ns=8, packets=1, origin="user", id=1
        )

    def test_that_was_forgotten_and_came_back_is_another(self, store: Store) -> None:
        add(store, written(key(), packets=9))
        store.write(Batch(deleted=[key()], added=[written(key(), PENDING, "traffic", at=8)]))
        assert store.get(1) is None
        assert [(flow.id, flow.packets, flow.first_seen_ns) for flow in store.list()] == [(2, 1, 8)]

    def test_has_its_history_also_when_it_is_forgotten(self, store: Store) -> None:
        history = [
            Transition(key=key(), before=None, after=PENDING, at_ns=1, who="traffic", why="new flow, pending"),
            Transition(key=key(), before=PENDING, after=DENIED, at_ns=2, who="user ann", why="flows deny"),
            Transition(key=key(), before=DENIED, after=None, at_ns=3, who="user ann", why="flows forget"),
        ]
        other = Transition(key=key(80), before=None, after=ALLOWED, at_ns=1, who="tofu", why="learned on first use")
        store.write(Batch(added=[written(key(), PENDING)], transitions=[history[0], other, history[1]]))
        store.write(Batch(deleted=[key()], transitions=[history[2]]))
        assert store.transitions(key()) == history
        assert store.find(key()) is None


class TestAddresses:
    def test_are_those_a_mac_was_seen_from_the_newest_first(self, store: Store) -> None:
        store.write(Batch(added=[written(key())], addresses=[(key(), b"aaaa", 1), (key(), b"bbbb", 2)]))
        store.write(Batch(addresses=[(key(), b"aaaa", 3)]))
        assert store.addresses(key()) == [b"aaaa", b"bbbb"]
        assert store.addresses(key(80)) == []

    def test_are_at_most_sixteen(self, store: Store) -> None:
        add(store, written(key()), written(key(80)))
        for number in range(20):
            store.write(Batch(addresses=[(key(), bytes([10, 0, 0, number]), number), (key(80), b"aaaa", number)]))
        assert store.addresses(key()) == [bytes([10, 0, 0, number]) for number in range(19, 19 - MAX_ADDRESSES, -1)]
        assert store.addresses(key(80)) == [b"aaaa"]

    def test_go_with_the_flow(self, store: Store) -> None:
        store.write(Batch(added=[written(key())], addresses=[(key(), b"aaaa", 1)]))
        store.write(Batch(deleted=[key()], added=[written(key())]))
        assert store.addresses(key()) == []

    def test_of_a_flow_without_a_mac_are_its_own(self, store: Store) -> None:
        assert store.addresses(key(source=SERVER)) == [SERVER]


class TestLists:
    @pytest.fixture(autouse=True)
    def flows(self, store: Store) -> None:
        add(
            store,
            written(key(80), ALLOWED, "tofu", at=1),
            written(key(81), PENDING, "traffic", at=2),
            written(key(80, CAMERA, "iot_wan"), DENIED, "user", at=3),
            written(FlowKey("iot_wan", SERVER, 17, 53, SERVER), IGNORED, "user", at=4),
            written(key(82), ALLOWED, "user", at=5),
        )

    @pytest.mark.parametrize(
        ("wanted", "ids"),
        [
            (None, [1, 2, 3, 4, 5]),
            (FlowFilter(), [1, 2, 3, 4, 5]),
            (FlowFilter(policy="iot_wan"), [3, 4]),
            (FlowFilter(state=ALLOWED), [1, 5]),
            (FlowFilter(source=LAPTOP), [1, 2, 5]),
            (FlowFilter(protocol=17), [4]),
            (FlowFilter(port=80), [1, 3]),
            (FlowFilter(destination=SERVER), [4]),
            (FlowFilter(destination=b""), [1, 2, 3, 5]),
            (FlowFilter(origin="user", state=ALLOWED), [5]),
            (FlowFilter(not_seen_since_ns=3), [1, 2]),
            (FlowFilter(text="OT_"), [3, 4]),
            (FlowFilter(text="%"), []),
            (FlowFilter(text="02:bb"), [3]),
            (FlowFilter(text="c000"), [4]),
            (FlowFilter(text="'; DROP TABLE flow; --"), []),
        ],
        ids=repr,
    )
    def test_hold_what_was_asked_for(self, store: Store, wanted: FlowFilter | None, ids: list[int]) -> None:
        assert [flow.id for flow in store.list(wanted)] == ids
        assert store.count(wanted) == len(ids)

    def test_come_in_pages(self, store: Store) -> None:
        assert [flow.id for flow in store.list(limit=2)] == [1, 2]
        assert [flow.id for flow in store.list(after_id=2, limit=2)] == [3, 4]
        assert [flow.id for flow in store.list(FlowFilter(policy="lan_wan"), after_id=2, limit=9)] == [5]

    def test_are_counted(self, store: Store) -> None:
        assert store.counts() == {PENDING: 1, ALLOWED: 2, DENIED: 1, IGNORED: 1}
        assert store.count_learned() == 1
        assert store.count_source(LAPTOP) == (1, 1)
        assert store.count_source(CAMERA) == (0, 0)

    @pytest.mark.parametrize("page", [1, 2, 3, 100])
    def test_of_elements_hold_what_the_kernel_enforces(
        self, store: Store, page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "PAGE", page)
        everything = {
            (key(80), ALLOWED),
            (key(80, CAMERA, "iot_wan"), DENIED),
            (FlowKey("iot_wan", SERVER, 17, 53, SERVER), IGNORED),
            (key(82), ALLOWED),
        }
        assert set(store.elements()) == everything
        assert len(list(store.elements())) == 4
        assert set(store.elements("iot_wan")) == {element for element in everything if element[0].policy == "iot_wan"}
        assert list(store.elements("nobody")) == []

    def test_of_elements_can_be_gone_through_again(self, store: Store) -> None:
        elements = store.elements()
        before = list(elements)
        add(store, written(key(83)))
        assert list(elements) == [*before, (key(83), ALLOWED)]

    def test_of_elements_name_no_flow_twice(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "PAGE", 1)
        everything = list(store.elements())
        reading = iter(store.elements())
        first, _ = next(reading)
        store.write(Batch(deleted=[first], added=[written(first)]))  # it is there again, under another id
        assert first not in [flow for flow, _ in reading]
        assert sorted(store.elements()) == sorted([(first, ALLOWED), *everything[1:]])

    def test_of_samples_hold_one_of_each_kind(self, store: Store) -> None:
        add(store, written(key(9, CAMERA)), written(FlowKey("lan_wan", LAPTOP, 1, 8)))
        kinds = [
            (flow.policy, len(flow.source), flow.protocol, len(flow.destination), state)
            for flow, state in store.samples()
        ]
        assert sorted(kinds) == [
            ("iot_wan", 4, 17, 4, IGNORED),
            ("iot_wan", 6, 6, 0, DENIED),
            ("lan_wan", 6, 1, 0, ALLOWED),
            ("lan_wan", 6, 6, 0, ALLOWED),
        ]


class TestKernelCounters:
    @pytest.fixture(autouse=True)
    def flow(self, store: Store) -> None:
        add(store, written(key(), packets=1, at=5))

    def read(self, store: Store, counter: int, now_ns: int) -> tuple[int, int]:
        store.add_kernel_counts([(key(), counter), (key(9999), 7)], now_ns)
        found = store.find(key())
        assert found is not None
        return found.packets, found.last_seen_ns

    def test_add_what_has_come_since_the_last_reading(self, store: Store) -> None:
        assert self.read(store, 10, 20) == (11, 20)
        assert self.read(store, 15, 30) == (16, 30)

    def test_that_did_not_move_mean_that_nothing_was_seen(self, store: Store) -> None:
        self.read(store, 10, 20)
        assert self.read(store, 10, 30) == (11, 20)
        assert store.find(key(9999)) is None

    def test_that_began_anew_count_whole(self, store: Store) -> None:
        self.read(store, 10, 20)
        assert self.read(store, 4, 30) == (15, 30)
        assert self.read(store, 6, 40) == (17, 40)

    def test_begin_anew_with_a_new_state_and_with_a_new_table(self, store: Store) -> None:
        self.read(store, 10, 20)
        store.write(Batch(changed=[written(key(), DENIED, "user", packets=0)]))
        assert self.read(store, 12, 30) == (23, 30)
        store.reset_kernel_counts()
        assert self.read(store, 13, 40) == (36, 40)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 64 + 8 + 8 + 1, 300])
def test_many_flows_are_written_as_each_alone_would_be(tmp_path: Path, count: int) -> None:
    """One batch of everything, and its slow twin: the same batches, a flow each."""
    keys = [key(number, LAPTOP if number % 3 else CAMERA, destination=SERVER * (number % 2)) for number in range(count)]
    known = keys[: count // 2]

    def batches(keys: list[FlowKey], known: list[FlowKey]) -> Iterator[Batch]:
        yield Batch(
            added=[written(flow, DENIED if flow.port % 5 == 0 else ALLOWED, packets=flow.port, at=9) for flow in keys],
            addresses=[(flow, bytes([10, 0, 0, number]), number) for flow in keys for number in range(flow.port % 3)],
            transitions=[
                Transition(key=flow, before=None, after=ALLOWED, at_ns=flow.port, who="tofu", why=Why.FIRST_USE)
                for flow in keys
            ],
        )
        yield Batch(
            added=[written(flow, ALLOWED, "user", at=20) for flow in known],
            seen=[Seen(flow, 30 - flow.port % 20, 2) for flow in keys],
            addresses=[(flow, bytes([10, 0, 0, 1]), 40) for flow in keys],
        )

    def dump(store: Store) -> list[list[object]]:
        tables = ("flow", "flow_address", '"transition"')
        return [store._database.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]

    with Store.open(tmp_path / "one.db") as one, Store.open(tmp_path / "many.db") as many:
        for batch in batches(keys, known):
            many.write(batch)
        for turn in (0, 1):
            for flow in keys:
                one.write(list(batches([flow], [flow] if flow in known else []))[turn])
        counts = [(flow, 100 + flow.port) for flow in keys]
        for reading in (counts, counts, [(flow, flow.port) for flow in known]):
            many.add_kernel_counts(reading, 50)
            for row in reading:
                one.add_kernel_counts([row], 50)
        assert dump(many) == dump(one)
        assert {type(value) for row in dump(many)[2] for value in row} == {int, str, bytes, type(None)}


def test_how_learning_is_switched_is_kept(store: Store) -> None:
    assert store.learning() is None
    saved = SavedLearning(
        False, (LearningRow("", False, 1, None, "file"), LearningRow("lan_wan", True, 2, 9, "user ann"))
    )
    store.save_learning(SavedLearning(True, (LearningRow("iot_wan", True, 1, None, "file"),)))
    store.save_learning(saved)
    assert store.learning() == saved


def test_the_policies_numbers_are_kept(store: Store) -> None:
    assert store.numbers() == {}
    store.save_numbers({"DROP_INPUT/mac": 1})
    store.save_numbers({"DROP_INPUT/mac": 1, "lan_wan/ip": 7})
    assert store.numbers() == {"DROP_INPUT/mac": 1, "lan_wan/ip": 7}


def test_the_control_process_reads_while_the_worker_writes(store: Store) -> None:
    with Store.open(store.path, read_only=True) as reader:
        assert reader.count() == 0
        add(store, written(key()))
        assert [flow.key for flow in reader.list()] == [key()]
        with pytest.raises(StoreError):
            add(reader, written(key(80)))


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    broken = Transition(key=key(), before=None, after=ALLOWED, at_ns=1, who=None, why="")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="NOT NULL"):
        store.write(Batch(added=[written(key())], transitions=[broken]))
    assert store.count() == 0


def test_a_temporary_store_leaves_nothing_behind() -> None:
    with Store.temporary() as store:
        add(store, written(key()))
        assert store.count() == 1
        folder = store.path.parent
    assert not folder.exists()


def test_with_every_key_remembered_it_finds_what_it_found_before(tmp_path: Path) -> None:
    with Store.open(tmp_path / "flows.db") as store:
        store.write(Batch(added=[written(key(port)) for port in range(1, 20_000, 2)]))
        store.remember()
        store.write(Batch(added=[written(key(2))]))
        found = {port for port in range(20_001) if store.find(key(port)) is not None}
        assert found == {2, *range(1, 20_000, 2)}
        store.write(Batch(deleted=[key(2), key(3)]))
        assert store.find(key(2)) is store.find(key(3)) is None
        store.write(Batch(added=[written(key(3))]))
        assert store.find(key(3)) is not None
