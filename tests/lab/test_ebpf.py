"""glacic.lab.ebpf: programs and links are seen while they are there, and a packet can be put through one."""

from __future__ import annotations

import os
import time
from typing import Any

from glacic.lab import ebpf
from glacic.shaping import scratch
from glacic.shaping.bpf import syscall
from glacic.shaping.bpf.insns import R0, R1, Code
from glacic.shaping.scratch import Scratch


def _answers(number: int) -> int:
    code = Code()
    code.set(R0, number)
    code.exit()
    return _load(code)


def _load(code: Code) -> int:
    return syscall.load_program(
        syscall.PROG_TYPE_CGROUP_SKB, syscall.CGROUP_INET_EGRESS, code.assemble(), "Proprietary", "lab_test"
    )


def test_a_program_and_its_link_are_listed_while_they_are_there() -> None:
    def work(made: Scratch) -> Any:
        program, directory = _answers(1), os.open(made.mount / made.limited.path, os.O_RDONLY)
        number = syscall.program_info(program).id
        link = syscall.create_link(program, directory, syscall.CGROUP_INET_EGRESS)
        os.close(program)
        seen = [number in [info.id for info in ebpf.programs()]]
        seen.append([info.program for info in ebpf.links() if info.cgroup == made.limited.id] == [number])
        os.close(link)
        until = time.monotonic() + 5
        while number in [info.id for info in ebpf.programs()] and time.monotonic() < until:
            time.sleep(0.02)
        seen.append(number in [info.id for info in ebpf.programs()])
        return seen

    assert scratch.inside(work) == [True, True, False]


def test_a_packet_put_through_a_program_gets_its_answer() -> None:
    def work(_: Scratch) -> Any:
        return [ebpf.put_through(_answers(number), bytes([0x45, *bytes(39)]), interface=2)[0] for number in (0, 1)]

    assert scratch.inside(work) == [0, 1]


def test_the_program_sees_the_packet_and_its_interface() -> None:
    def work(_: Scratch) -> Any:
        code = Code()
        code.load(R0, R1, "w", 40)  # ifindex
        code.jump("==", R0, 1, "loopback")
        code.set(R0, 1)
        code.exit()
        code.label("loopback")
        code.set(R0, 0)
        code.exit()
        program = _load(code)
        return [ebpf.put_through(program, bytes([0x60, *bytes(59)]), interface=number)[0] for number in (1, 2)]

    assert scratch.inside(work) == [0, 1]
