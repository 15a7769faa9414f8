"""The exit codes that the command line promises."""

from __future__ import annotations

import pytest

from glacic import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.GlacicError, 1),
        (errors.CaptureError, 1),
        (errors.StoreError, 1),
        (errors.UnknownFlow, 1),
        (errors.LabError, 1),
        (errors.UsageError, 2),
        (errors.NoProgram, 126),
        (errors.NoCommand, 127),
        (errors.Unreachable, 3),
        (errors.KernelRefused, 4),
    ],
)
def test_every_error_ends_a_command_with_its_code(kind: type[errors.GlacicError], exit_code: int) -> None:
    error = kind("what is wrong")
    assert (error.exit_code, str(error), error.details) == (exit_code, "what is wrong", {})


def test_an_invalid_configuration_is_a_no() -> None:
    assert errors.ConfigError(()).exit_code == 1
