"""Limits in eBPF, the bottom: an assembler. Instructions with labels become the bytes that bpf(2) takes.

    code = Code()
    code.load(R1, R6, "w", 40)
    code.jump("==", R1, 1, "pass")
    ...
    code.label("pass")
    code.set(R0, 1)
    code.exit()
    code.assemble()

Encoding: linux/bpf.h, linux/bpf_common.h and RFC 9669. Every label that is jumped to exists, lies ahead (the programs
here have no loops: the kernel's verifier has less to follow), and stands once. Refuses to know what a program is for.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)  # R0 result, R1..R5 arguments, R6..R9 kept, FP the frame

# Classes and modes, linux/bpf_common.h and linux/bpf.h
_LD, _LDX, _ST, _STX, _ALU, _JMP, _ALU64 = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x07
_IMM, _MEM, _ATOMIC = 0x00, 0x60, 0xC0
_REGISTER = 0x08  # BPF_X: the second operand is a register
_SIZES = {"b": 0x10, "h": 0x08, "w": 0x00, "dw": 0x18}
_ARITHMETIC = {"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "&": 0x50, "=": 0xB0}
_JUMPS = {"==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50, "<": 0xA0, "<=": 0xB0}  # unsigned
_ALWAYS, _CALL, _EXIT = 0x00, 0x80, 0x90
_SWAP, _TO_BIG_ENDIAN = 0xD0, 0x08
_FETCH, _EXCHANGE_IF_EQUAL = 0x01, 0xF0
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD, in the place of the source register

_INSTRUCTION = struct.Struct("=B B h i")  # operation, registers, offset, immediate
_I32_MIN, _I32_MAX = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class _Instruction:
    operation: int
    target: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0
    to: str = ""  # the label whose distance is the offset


class Code:
    """A program in the making. Operands that are registers are said to be (`Register`), others are numbers."""

    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """The next instruction is where jumps to this name go."""
        if name in self._labels:
            raise ValueError(f"label {name} stands twice")
        self._labels[name] = len(self._instructions)

    def set(self, target: int, number: int) -> None:
        """target = number, of 32 bits with its sign."""
        self._add(_ALU64 | _ARITHMETIC["="], target, immediate=number)

    def set_unsigned(self, target: int, number: int) -> None:
        """target = number, of 32 bits without a sign."""
        self._add(_ALU | _ARITHMETIC["="], target, immediate=_signed(number))

    def copy(self, target: int, source: int) -> None:
        """target = source, both registers."""
        self.compute(target, "=", source)

    def compute(self, target: int, operator: str, source: int) -> None:
        """target = target OPERATOR source, both registers of 64 bits; a division by 0 is 0."""
        self._add(_ALU64 | _REGISTER | _ARITHMETIC[operator], target, source)

    def compute_number(self, target: int, operator: str, number: int) -> None:
        """target = target OPERATOR number."""
        self._add(_ALU64 | _ARITHMETIC[operator], target, immediate=number)

    def mask(self, target: int, bits: int) -> None:
        """target = target & bits, both of 32 bits; the upper half becomes 0."""
        self._add(_ALU | _ARITHMETIC["&"], target, immediate=_signed(bits))

    def to_host_order(self, target: int, bits: int) -> None:
        """A number of so many bits (16, 32, 64) in network byte order becomes the machine's own."""
        self._add(_ALU | _SWAP | _TO_BIG_ENDIAN, target, immediate=bits)

    def load(self, target: int, address: int, size: str, offset: int) -> None:
        """target = memory at the address register + offset. size: b, h, w or dw (1, 2, 4, 8 bytes)."""
        self._add(_LDX | _MEM | _SIZES[size], target, address, offset)

    def store(self, address: int, offset: int, size: str, source: int) -> None:
        """Memory at the address register + offset = source register."""
        self._add(_STX | _MEM | _SIZES[size], address, source, offset)

    def store_number(self, address: int, offset: int, size: str, number: int) -> None:
        """Memory at the address register + offset = number."""
        self._add(_ST | _MEM | _SIZES[size], address, offset=offset, immediate=number)

    def add_atomically(self, address: int, offset: int, source: int) -> None:
        """Memory of 8 bytes += source, whoever else does the same."""
        self._add(_STX | _ATOMIC | _SIZES["dw"], address, source, offset, _ARITHMETIC["+"])

    def exchange_if_equal(self, address: int, offset: int, source: int) -> None:
        """Memory of 8 bytes = source if it equals R0, in one step. R0 = what was there (BPF_CMPXCHG, Linux 5.12)."""
        self._add(_STX | _ATOMIC | _SIZES["dw"], address, source, offset, _EXCHANGE_IF_EQUAL | _FETCH)

    def load_map(self, target: int, descriptor: int) -> None:
        """target = the map that this descriptor of the loading process stands for."""
        self._add(_LD | _IMM | _SIZES["dw"], target, _MAP_FD, immediate=descriptor)
        self._add(0)  # the upper half of its 64 bits

    def jump(self, comparison: str, register: int, number: int, to: str) -> None:
        """Go to a label if register COMPARISON number (32 bits, widened with its sign; compared without)."""
        self._add(_JMP | _JUMPS[comparison], register, immediate=number, to=to)

    def jump_registers(self, comparison: str, register: int, other: int, to: str) -> None:
        """Go to a label if register COMPARISON other register, without signs."""
        self._add(_JMP | _REGISTER | _JUMPS[comparison], register, other, to=to)

    def go(self, to: str) -> None:
        """Go to a label."""
        self._add(_JMP | _ALWAYS, to=to)

    def call(self, helper: int) -> None:
        """R0 = the kernel's helper function of this number, of R1..R5, which are gone afterwards."""
        self._add(_JMP | _CALL, immediate=helper)

    def exit(self) -> None:
        """End with the answer in R0."""
        self._add(_JMP | _EXIT)

    def assemble(self) -> bytes:
        """The program. Raises ValueError where a label is missing or lies behind."""
        return b"".join(self._encoded(at, instruction) for at, instruction in enumerate(self._instructions))

    def _add(
        self, operation: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0, to: str = ""
    ) -> None:
        if not _I32_MIN <= immediate <= _I32_MAX:
            raise ValueError(f"{immediate} does not fit into 32 bits")
        self._instructions.append(_Instruction(operation, target, source, offset, immediate, to))

    def _encoded(self, at: int, instruction: _Instruction) -> bytes:
        offset = instruction.offset
        if instruction.to:
            if instruction.to not in self._labels:
                raise ValueError(f"label {instruction.to} is nowhere")
            offset = self._labels[instruction.to] - at - 1
            if offset < 0:
                raise ValueError(f"label {instruction.to} lies behind")
        return _INSTRUCTION.pack(
            instruction.operation, _registers(instruction.target, instruction.source), offset, instruction.immediate
        )


def _registers(target: int, source: int) -> int:
    """Two fields of 4 bits in one byte: the target comes first, which is another half on another byte order."""
    return target | source << 4 if sys.byteorder == "little" else target << 4 | source


def _signed(bits: int) -> int:
    """32 bits as the signed number that an immediate is."""
    return bits - (1 << 32) if bits > _I32_MAX else bits
