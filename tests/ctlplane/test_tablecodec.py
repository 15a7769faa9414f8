"""nf_tables' messages: what is read out of them, and that nothing else is."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import netlink
from glacic.ctlplane import tablecodec as codec
from glacic.ctlplane.netlink import Message
from glacic.ctlplane.tablecodec import Key

NFGEN = bytes([1, 0, 0, 0])  # family inet, version, resource


def message(kind: int, *attributes: bytes, family: int = 1) -> Message:
    return Message(codec.SUBSYSTEM << 8 | kind, 0, 0, bytes([family]) + NFGEN[1:] + b"".join(attributes))


def test_a_commit_says_generation_thread_and_name() -> None:
    numbers = [netlink.attribute(1, struct.pack("!I", 7)), netlink.attribute(2, struct.pack("!I", 4321))]
    commit = codec.commit_in(message(codec.NEWGEN, *numbers, codec.text(3, "nft")))
    assert commit == codec.Commit(7, 4321, "nft")
    assert codec.commit_in(message(codec.NEWRULE)) is None


def test_only_our_table_of_our_family_counts() -> None:
    ours = message(codec.NEWCHAIN, codec.text(1, "glacic"), codec.text(3, "input"))
    assert [each.key for each in codec.objects_in(ours, "glacic")] == [Key("chain", "input")]
    for other in (
        message(codec.NEWCHAIN, codec.text(1, "glacic2"), codec.text(3, "input")),
        message(codec.NEWCHAIN, codec.text(1, "glacic"), codec.text(3, "input"), family=2),
        message(codec.NEWGEN),
        ours._replace(type=codec.NEWCHAIN),
    ):
        assert list(codec.objects_in(other, "glacic")) == []


def test_a_deleted_table_is_gone() -> None:
    (gone,) = codec.objects_in(message(codec.DELTABLE, codec.text(1, "glacic")), "glacic")
    assert (gone.key, gone.gone) == (Key("table", ""), True)


def test_a_rule_has_its_comment_and_not_what_it_counted() -> None:
    def rule(packets: int) -> codec.Object:
        counted = netlink.nested(2, netlink.attribute(2, struct.pack("!Q", packets)))
        expressions = netlink.nested(4, netlink.nested(1, codec.text(1, "counter"), counted))
        comment = netlink.attribute(7, b"\0\3hi\0")
        handle = netlink.attribute(3, struct.pack("!Q", 12))
        whole = (codec.text(1, "glacic"), codec.text(2, "input"), handle, expressions, comment)
        return next(codec.objects_in(message(codec.NEWRULE, *whole), "glacic"))

    assert rule(1) == rule(2)
    assert (rule(1).comment, rule(1).handle, rule(1).expressions) == ("hi", 12, ("counter",))


@given(st.integers(0, 30), st.binary(max_size=300))
def test_garbage_is_left_out(kind: int, body: bytes) -> None:
    for prefix in (b"", NFGEN, NFGEN + codec.text(1, "glacic")):
        garbage = Message(codec.SUBSYSTEM << 8 | kind, 0, 0, prefix + body)
        codec.commit_in(garbage)
        for each in codec.objects_in(garbage, "glacic"):
            codec.element_key(each.definition)
            codec.element_ends(each.definition)
            codec.hook_of(each.definition)
            assert codec.flags_of(each.definition) >= 0
    codec.port_of(body)
