"""Every error that Glacic raises on purpose: one root, a few leaves, each with the exit code it ends a command with.

Foreign errors (OSError, SQLAlchemyError, ...) are turned into one of these once, where the foreign call is made. The
text says what is wrong, where, and what to do next; nothing above prints a stack for them.

    0  fine                                   2  the command was misused
    1  the answer is no                       3  the service cannot be reached
    126, 127  a command cannot be run         4  the kernel refused
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glacic.config.source import Diagnostic


class GlacicError(Exception):
    """The root. Raised as it stands for a plain "no"."""

    exit_code = 1

    def __init__(self, *words: object) -> None:
        super().__init__(*words)
        self.details: dict[str, Any] = {}  # what a JSON answer says besides the text


class ConfigError(GlacicError):
    """The configuration is not valid; `diagnostics` holds everything that is wrong with it, in file order."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n\n".join(d.render() for d in diagnostics))
        self.details = {"errors": [diagnostic.as_dict() for diagnostic in diagnostics]}
        self.diagnostics = diagnostics


class CaptureError(GlacicError):
    """A file is no packet capture, or of a kind that cannot be read."""


class StoreError(GlacicError):
    """The flow database cannot be opened, read or written."""


class StoreDamaged(StoreError):
    """The flow database's file is damaged: what it holds cannot be trusted any more, and has to be recovered."""


class UnknownFlow(GlacicError):
    """No flow has this id or key."""


class NotAllowed(GlacicError):
    """Whoever asks on the control socket lacks the right; the text says who they are and which group has it."""


class AuditError(GlacicError):
    """The audit trail cannot be written or read."""


class LabError(GlacicError):
    """The lab lacks something, or what it started went wrong; the text names it and how to get it."""


class NoCommand(GlacicError):
    """There is no such command to run (POSIX, Shell Command Language 2.8.2)."""

    exit_code = 127


class NoProgram(GlacicError):
    """What was to be run is a file, and cannot be executed (as above)."""

    exit_code = 126


class UsageError(GlacicError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class Unreachable(GlacicError):
    """Nobody answers on the control socket."""

    exit_code = 3


class KernelRefused(GlacicError):
    """The kernel (nftables, nfnetlink) or the rights of this process do not allow it."""

    exit_code = 4
