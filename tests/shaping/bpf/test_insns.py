"""glacic.shaping.bpf.insns: instructions become the bytes of RFC 9669."""

from __future__ import annotations

import sys

import pytest

from glacic.shaping.bpf.insns import FP, R0, R1, R2, R6, R9, Code

LITTLE = sys.byteorder == "little"


def _code(*steps: tuple[str, tuple[object, ...]]) -> bytes:
    code = Code()
    for name, operands in steps:
        getattr(code, name)(*operands)
    return code.assemble()


@pytest.mark.parametrize(
    ("name", "operands", "little_endian"),
    [
        # operation, source and target register, offset, immediate
        ("set", (R0, 1), "b7 00 0000 01000000"),
        ("set", (R9, -1), "b7 09 0000 ffffffff"),
        ("set_unsigned", (R1, 0xC0000000), "b4 01 0000 000000c0"),
        ("copy", (R6, R1), "bf 16 0000 00000000"),
        ("compute", (R1, "/", R2), "3f 21 0000 00000000"),
        ("compute_number", (R2, "+", -4), "07 02 0000 fcffffff"),
        ("mask", (R1, 0xFF000000), "54 01 0000 000000ff"),
        ("to_host_order", (R1, 32), "dc 01 0000 20000000"),
        ("load", (R1, R6, "w", 40), "61 61 2800 00000000"),
        ("load", (R0, R9, "dw", 16), "79 90 1000 00000000"),
        ("store", (FP, -8, "h", R1), "6b 1a f8ff 00000000"),
        ("store_number", (FP, -4, "w", 3), "62 0a fcff 03000000"),
        ("add_atomically", (R9, 8, R1), "db 19 0800 00000000"),
        ("exchange_if_equal", (R9, 16, R2), "db 29 1000 f1000000"),
        ("call", (5,), "85 00 0000 05000000"),
        ("exit", (), "95 00 0000 00000000"),
        ("load_map", (R1, 7), "18 11 0000 07000000 00 00 0000 00000000"),
    ],
)
def test_an_instruction_is_encoded_as_the_standard_says(
    name: str, operands: tuple[object, ...], little_endian: str
) -> None:
    made = _code((name, operands))
    assert len(made) % 8 == 0
    if LITTLE:
        assert made == bytes.fromhex(little_endian)
    else:
        assert made[0] == bytes.fromhex(little_endian)[0]


def test_a_jump_counts_the_instructions_between_it_and_its_label() -> None:
    code = Code()
    code.jump("==", R1, 1, "end")  # over two
    code.go("end")  # over one
    code.set(R0, 0)
    code.label("end")
    code.exit()
    made = code.assemble()
    assert [int.from_bytes(made[at + 2 : at + 4], sys.byteorder) for at in (0, 8)] == [2, 1]


def test_a_map_takes_the_room_of_two_instructions_in_that_count() -> None:
    code = Code()
    code.jump_registers("!=", R1, R2, "end")
    code.load_map(R1, 3)
    code.label("end")
    code.exit()
    assert int.from_bytes(code.assemble()[2:4], sys.byteorder) == 2


def test_a_label_that_is_missing_lies_behind_or_stands_twice_is_refused() -> None:
    missing = Code()
    missing.go("nowhere")
    with pytest.raises(ValueError, match="nowhere is nowhere"):
        missing.assemble()
    behind = Code()
    behind.label("start")
    behind.go("start")
    with pytest.raises(ValueError, match="start lies behind"):
        behind.assemble()
    with pytest.raises(ValueError, match="stands twice"):
        behind.label("start")


def test_a_number_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="4294967296 does not fit"):
        Code().set(R0, 1 << 32)
