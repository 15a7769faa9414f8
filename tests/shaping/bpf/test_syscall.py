"""glacic.shaping.bpf.syscall: bpf(2) does what its functions say, and its refusals say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glacic.errors import KernelRefused
from glacic.shaping.bpf import syscall
from glacic.shaping.bpf.insns import R0, R1, R6, Code

LICENCE = "GPL-2.0-or-later"


@pytest.fixture
def array() -> int:
    descriptor = syscall.create_map(syscall.MAP_TYPE_ARRAY, 4, 8, 2, "glacic_test")
    yield descriptor
    os.close(descriptor)


def _load(code: Code) -> int:
    return syscall.load_program(
        syscall.PROG_TYPE_CGROUP_SKB, syscall.CGROUP_INET_INGRESS, code.assemble(), LICENCE, "glacic_test"
    )


def test_a_map_gives_back_what_was_put_into_it(array: int) -> None:
    syscall.update(array, bytes([1, 0, 0, 0]), b"12345678")
    assert syscall.lookup(array, bytes([1, 0, 0, 0]), 8) == b"12345678"
    assert syscall.lookup(array, bytes(4), 8) == bytes(8)


def test_a_key_that_is_not_there_is_lost_not_refused(array: int) -> None:
    with pytest.raises(syscall.LostObject, match="No such file"):
        syscall.lookup(array, bytes([9, 0, 0, 0]), 8)


def test_the_kernel_tells_a_maps_shape(array: int) -> None:
    info = syscall.map_info(array)
    assert (info.type, info.key_size, info.value_size, info.max_entries) == (syscall.MAP_TYPE_ARRAY, 4, 8, 2)
    assert info.name == "glacic_test"


def test_descriptors_are_closed_in_programs_that_are_started(array: int) -> None:
    assert not os.get_inheritable(array)


def test_a_program_is_loaded_under_its_name_and_claims_no_gpl() -> None:
    code = Code()
    code.set(R0, 1)
    code.exit()
    descriptor = _load(code)
    try:
        info = syscall.program_info(descriptor)
    finally:
        os.close(descriptor)
    assert (info.type, info.name, info.gpl_compatible) == (syscall.PROG_TYPE_CGROUP_SKB, "glacic_test", False)


def test_a_program_that_the_verifier_refuses_is_an_error_with_its_words() -> None:
    code = Code()
    code.load(R1, R6, "w", 0)  # R6 was never set
    code.set(R0, 1)
    code.exit()
    with pytest.raises(KernelRefused, match=r"(?s)program glacic_test: Permission denied.*verifier: R6 !read_ok"):
        _load(code)


def test_a_pin_that_is_not_there_is_lost(tmp_path: Path) -> None:
    with pytest.raises(syscall.LostObject, match="nothing_here"):
        syscall.pinned(str(tmp_path / "nothing_here"))


def test_an_attachment_to_a_folder_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    code = Code()
    code.set(R0, 1)
    code.exit()
    program, folder = _load(code), os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(KernelRefused, match="attachment of a program: Bad file descriptor"):
            syscall.create_link(program, folder, syscall.CGROUP_INET_INGRESS)
    finally:
        os.close(program)
        os.close(folder)


def test_a_name_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="up to 15 bytes"):
        syscall.create_map(syscall.MAP_TYPE_ARRAY, 4, 8, 1, "a_name_of_16_byt")
