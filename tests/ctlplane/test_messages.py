"""Flow keys between control process and worker."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane.messages import pack_key, unpack_key
from glacic.learning.flow import FlowKey

addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
keys = st.builds(
    FlowKey,
    st.text(min_size=1),
    addresses | st.binary(min_size=6, max_size=6),
    st.integers(0, 255),
    st.integers(0, 65_535),
    addresses | st.just(b""),
)


@given(keys)
def test_a_key_comes_back(key: FlowKey) -> None:
    assert unpack_key(json.loads(json.dumps(pack_key(key)))) == key
