"""Step 6 of road 2: the one thread that writes the flow database, in groups, behind the packets.

Every `interval_s` it takes what has changed in the cache and commits it in one transaction, and a change of state that
it is told of (`hasten`) within LINGER_S; small jobs of others (switches, numbers, counters from the kernel) are done in
between, in the order they came. While the database cannot
be written (locked, disk full, ...) it keeps what it has taken, tries again, says so once, and says so once when it is
over: nothing is lost as long as the process lives.

    commit()   the same for a packet's thread, where learning is `durable`: verdicts that wait share a commit
    flush()    returns when everything that had changed before it was called is committed: the moment to acknowledge

Refuses to decide what is written, and to let a packet's thread wait unless learning is `durable`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from glacic.errors import StoreError
from glacic.learning.ageing import move_pending, prune_transitions
from glacic.learning.cache import Batch, FlowCache, ParsedKey
from glacic.learning.flow import Jump
from glacic.learning.store import Store
from glacic.learning.switch import SavedLearning

INTERVAL_S = 0.2  # what a crash may cost at most, and how often counts are written
LINGER_S = 0.03  # how long a change of state waits for others to share its transaction
COMMIT_S = 2.0  # how long a packet waits for the disk; then `engine_error` says what becomes of it
RETRY_MAX_S = 5.0  # between two attempts, in the end
MAX_JOBS = 8  # jobs that wait; counters come in pages of thousands, and a million flows must not queue up in memory

Job = Callable[[], None]


class Writer:
    """The writing thread of one store. start() once, close() once."""

    def __init__(
        self,
        store: Store,
        cache: FlowCache,
        *,
        interval_s: float = INTERVAL_S,
        on_trouble: Callable[[str], None] = lambda _trouble: None,
        on_commit: Callable[[int], None] = lambda _transitions: None,
    ) -> None:
        """on_trouble hears what is wrong when writing begins to fail, and "" when it works again.

        on_commit hears, after each commit, how many changes of state were in it. Both are called on the writing thread.
        """
        self._store = store
        self._cache = cache
        self._interval_s = interval_s
        self._on_trouble = on_trouble
        self._on_commit = on_commit
        self._thread = threading.Thread(target=self._run, name="glacic-writer", daemon=True)
        self._changed = threading.Condition()  # guards what follows
        self._jobs: deque[Job] = deque()
        self._asked = 0  # flushes asked for,
        self._tried = 0  # answered by an attempt,
        self._done = 0  # and by a success
        self._hasty = False  # a state has changed since the last attempt began
        self._closing = False
        self._ended = False
        self._trouble = ""
        self._batch: Batch | None = None  # taken from the cache and not committed; the thread's own

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to write succeeded."""
        return not self._trouble

    @property
    def trouble(self) -> str:
        """What is wrong, "" if nothing."""
        return self._trouble

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hasten(self) -> None:
        """A flow's state has changed: have it on disk soon. Returns at once; packet threads may call it."""
        if not self._hasty:
            with self._changed:
                self._hasty = True
                self._changed.notify_all()

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until everything that has changed up to now is committed.

        Raises StoreError if an attempt fails or none succeeds in time; what has changed is kept, and tried again.
        """
        with self._changed:
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tried >= ticket or self._ended, timeout_s)
            if self._done < ticket:
                raise StoreError(
                    self._trouble or f"the flow database {self._store.path} was not written within {timeout_s:g} s"
                )

    def commit(self) -> None:
        """flush() for a packet that waits: where writing fails it is not tried anew for each. Raises StoreError."""
        if self._trouble:
            raise StoreError(self._trouble)
        self.flush(COMMIT_S)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left and end the thread. Raises StoreError if something could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive() or self._trouble:
            raise StoreError(f"changes of flows are lost: {self._trouble or 'the writer does not end'}")

    def add_kernel_counts(self, counts: Sequence[tuple[ParsedKey, int]], now_ns: int) -> bool:
        """Have the store take over a page of element counters.

        Waits its turn. False: not now, the database cannot be written; counters are absolute, the next reading makes
        up for it.
        """
        return self._submit(lambda: self._store.add_kernel_counts(counts, now_ns), may_be_lost=True)

    def reset_kernel_counts(self) -> None:
        """Have the store count from 0: every element was made anew."""
        self._submit(self._store.reset_kernel_counts)

    def prune(self, after_id: int, before_ns: int, then: Callable[[int], None]) -> bool:
        """Have the store forget a page of history (ageing.py); `then` hears where to go on.

        Waits its turn. False: not now, the database cannot be written.
        """
        return self._submit(
            lambda: then(prune_transitions(self._store.database, after_id, before_ns)), may_be_lost=True
        )

    def move_pending(self, jump: Jump) -> None:
        """Have the store move pending flows with the clock."""
        self._submit(lambda: move_pending(self._store.database, jump))

    def save_learning(self, saved: SavedLearning) -> None:
        """Have the store keep how learning is switched."""
        self._submit(lambda: self._store.save_learning(saved))

    def save_numbers(self, numbers: Mapping[str, int]) -> None:
        """Have the store keep the policies' numbers."""
        kept = dict(numbers)
        self._submit(lambda: self._store.save_numbers(kept))

    def _submit(self, job: Job, *, may_be_lost: bool = False) -> bool:
        with self._changed:
            if may_be_lost:
                self._changed.wait_for(lambda: len(self._jobs) < MAX_JOBS or self._trouble or self._closing)
                if self._trouble or self._closing:
                    return False
            if self._closing:
                raise StoreError(f"the flow database {self._store.path} has been closed")
            self._jobs.append(job)
            self._changed.notify_all()
            return True

    # ---- the thread

    def _run(self) -> None:
        try:
            self._write_until_closed()
        finally:
            with self._changed:
                if not self._closing:
                    self._trouble = f"the flow database {self._store.path} is not written: its thread has ended"
                self._ended = True
                self._changed.notify_all()

    def _write_until_closed(self) -> None:
        wait_s = self._interval_s
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._is_wanted() or (self._hasty and not self._trouble), wait_s)
                if self._hasty:
                    self._changed.wait_for(self._is_wanted, LINGER_S)
                asked, closing = self._asked, self._closing
                self._hasty = False
            trouble = self._attempt()
            wait_s = min(wait_s * 2, RETRY_MAX_S) if trouble else self._interval_s
            if bool(trouble) != bool(self._trouble):
                self._on_trouble(trouble)
            with self._changed:
                self._trouble = trouble
                self._tried = asked
                self._done = self._done if trouble else asked
                self._changed.notify_all()

    def _is_wanted(self) -> bool:
        return self._closing or self._asked > self._tried or (not self._trouble and len(self._jobs) >= MAX_JOBS)

    def _attempt(self) -> str:
        """Write everything there is. Returns what went wrong, "" if nothing."""
        try:
            for _ in range(len(self._jobs)):  # those that came meanwhile wait for the next round
                self._write_batch()
                self._jobs[0]()
                with self._changed:
                    self._jobs.popleft()
                    self._changed.notify_all()
            self._write_batch()
        except StoreError as error:
            return str(error)
        except Exception as error:  # the top loop of a thread that must not end: everything is kept, and it is told
            return f"the flow database {self._store.path} cannot be written: {error!r}"
        return ""

    def _write_batch(self) -> None:
        if self._batch is not None:  # left over from an attempt that failed; what has changed since comes after it
            self._commit(self._batch)
        self._batch = self._cache.take()
        if self._batch is not None:
            self._commit(self._batch)

    def _commit(self, batch: Batch) -> None:
        self._store.write(batch)
        self._cache.settle()
        self._batch = None
        self._on_commit(len(batch.transitions))
