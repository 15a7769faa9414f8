"""The control socket's language, shared by server and client. Step 1 of a person's request; no sockets here.

One request and one answer per line, each a JSON object, UTF-8, ended by a newline:

    {"do": "flows.list", "args": {"state": "pending"}}      ->      {"ok": true, "result": {...}}
                                                                    {"ok": false, "exit": 1, "error": "no such flow: 7"}

`exit` is the exit code that the command ends with (errors.py). A connection may carry any number of requests in turn.
The same lines go between the control process and its worker, there with an `id` that the answer repeats, and `event`
objects in between that answer nothing.
"""

from __future__ import annotations

import json
from typing import Any

from glacic import errors

MAX_REQUEST = 256 * 1024  # bytes of one request line; the longest legitimate one names a page of flows
TRIAL_MAX_S = 86_400  # how long a change may wait to be confirmed

_BY_EXIT_CODE: dict[int, type[errors.GlacicError]] = {
    errors.UsageError.exit_code: errors.UsageError,
    errors.Unreachable.exit_code: errors.Unreachable,
    errors.KernelRefused.exit_code: errors.KernelRefused,
}


def pack(message: dict[str, Any]) -> bytes:
    """One message as one line."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def unpack(line: bytes) -> dict[str, Any]:
    """The message of one line. Raises UsageError for anything that is not a JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise errors.UsageError(f"not a line of JSON: {error}") from None
    if not isinstance(message, dict):
        raise errors.UsageError("not a JSON object")
    return message


def request(do: str, args: dict[str, Any]) -> dict[str, Any]:
    """What a client sends."""
    return {"do": do, "args": args}


def answer(result: Any) -> dict[str, Any]:
    """What a request that was carried out is answered with."""
    return {"ok": True, "result": result}


def refusal(error: Exception) -> dict[str, Any]:
    """What a request that failed is answered with."""
    exit_code = error.exit_code if isinstance(error, errors.GlacicError) else 1
    details = error.details if isinstance(error, errors.GlacicError) else {}
    return {"ok": False, "exit": exit_code, "error": str(error), "details": details}


def result_of(message: dict[str, Any]) -> Any:
    """The result in an answer; raises the error in a refusal, as the class its exit code stands for."""
    if message.get("ok") is True:
        return message.get("result")
    kind = _BY_EXIT_CODE.get(message.get("exit", 1), errors.GlacicError)
    error = kind(str(message.get("error", "the service gave no reason")))
    error.details = message.get("details", {})
    raise error
