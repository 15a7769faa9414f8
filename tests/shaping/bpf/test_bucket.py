"""glacic.shaping.bpf.bucket: a rate is changed under a running program, and the bucket stays as full as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from glacic.shaping.bpf import bucket, program, syscall
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted


@pytest.fixture
def limit() -> Iterator[int]:
    descriptor = bucket.create()
    yield descriptor
    os.close(descriptor)


def _entry(limit: int, key: int) -> tuple[int, ...]:
    return program.ENTRY.unpack(syscall.lookup(limit, program.KEY.pack(key), program.ENTRY.size))


def _owe(limit: int, seconds: float) -> None:
    """Make the upload bucket full again so many seconds from now."""
    rate, tolerance, _, _ = _entry(limit, program.UPLOAD_BUCKET)
    full_at = time.monotonic_ns() + int(seconds * program.NS)
    syscall.update(limit, program.KEY.pack(program.UPLOAD_BUCKET), program.ENTRY.pack(rate, tolerance, full_at, 0))


def _owed(limit: int) -> float:
    return (_entry(limit, program.UPLOAD_BUCKET)[2] - time.monotonic_ns()) / program.NS


def test_a_new_bucket_is_full_and_as_deep_as_a_part_of_a_second(limit: int) -> None:
    bucket.set_rate(limit, UPLOAD, 1_000_000)
    rate, tolerance, _, _ = _entry(limit, program.UPLOAD_BUCKET)
    assert (rate, tolerance) == (1_000_000, round(bucket.DEPTH_S * program.NS))
    assert _owed(limit) <= 0


def test_directions_have_buckets_of_their_own(limit: int) -> None:
    bucket.set_rate(limit, DOWNLOAD, 5)
    assert _entry(limit, program.DOWNLOAD_BUCKET)[0] == 5
    assert _entry(limit, program.UPLOAD_BUCKET) == (0, 0, 0, 0)


def test_the_same_rate_again_changes_nothing(limit: int) -> None:
    bucket.set_rate(limit, UPLOAD, 1000)
    _owe(limit, 100)
    before = _entry(limit, program.UPLOAD_BUCKET)
    bucket.set_rate(limit, UPLOAD, 1000)
    assert _entry(limit, program.UPLOAD_BUCKET) == before


def test_a_debt_is_paid_at_the_new_rate_where_that_is_faster(limit: int) -> None:
    bucket.set_rate(limit, UPLOAD, 1000)
    _owe(limit, 1000)
    bucket.set_rate(limit, UPLOAD, 10_000)
    assert 90 < _owed(limit) <= 100


def test_a_slower_rate_does_not_make_a_debt_longer(limit: int) -> None:
    bucket.set_rate(limit, UPLOAD, 10_000)
    _owe(limit, 100)
    bucket.set_rate(limit, UPLOAD, 10)
    assert 90 < _owed(limit) <= 100


def test_counts_begin_at_nothing(limit: int) -> None:
    assert bucket.counted(limit, UPLOAD) == Counted()
