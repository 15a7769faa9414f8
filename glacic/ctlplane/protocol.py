"""The control socket's language, shared by server and client. Step 1 of a person's request; no sockets here.

One request and one answer per line, each a JSON object, UTF-8, ended by a newline:

    {"do": "flows.list", "args": {"state": "pending"}}      ->      {"ok": true, "result": {...}}
                                                                    {"ok": false, "exit": 1, "error": "no such flow: 7"}

`exit` is the exit code that the command ends with (errors.py). A connection may carry any number of requests in turn.
A request may also say `"from"`: where the person sits, for the audit trail, which keeps it as hearsay.

What comes in from outside is read more strictly than JSON asks (`unpack_request`): whatever two readers could
understand in two ways, or one only at length, is refused.
The same lines go between the control process and its worker, there with an `id` that the answer repeats, and `event`
objects in between that answer nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from glacic import errors

MAX_REQUEST = 256 * 1024  # bytes of one request line; the longest legitimate one names a page of flows
TRIAL_MAX_S = 86_400  # how long a change may wait to be confirmed
MAX_DEPTH = 8  # of a request; the deepest there is has three levels
MAX_DIGITS = 20  # of a number; 2**64 has as many
MAX_FROM = 200  # characters of what a client says of its place

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


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in: its name, its arguments, and where the client says it comes from."""

    do: str
    args: dict[str, Any]
    told: str = ""


def unpack_request(line: bytes) -> Asked:
    """The request of one line from outside. Raises UsageError for anything that is none.

    Refused are other encodings than UTF-8, half a surrogate pair, NaN and what is no finite number, numbers of more
    than MAX_DIGITS digits, a name twice in one object, and nesting deeper than MAX_DEPTH.
    """
    try:
        message = _STRICT.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.UsageError(f"not a line of JSON: {error}") from None
    if not isinstance(message, dict):
        raise errors.UsageError("not a JSON object")
    _check(message, MAX_DEPTH)
    do, args, told = message.get("do"), message.get("args", {}), message.get("from", "")
    if not isinstance(do, str) or not isinstance(args, dict) or not isinstance(told, str):
        raise errors.UsageError('not a request: {"do": NAME, "args": {...}}')
    return Asked(do, args, told[:MAX_FROM])


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise errors.UsageError("not plain text: half a surrogate pair")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise errors.UsageError(f"nested deeper than {MAX_DEPTH} levels")
        for inner in value:
            _check(inner, depth - 1)
            if isinstance(value, dict):
                _check(value[inner], depth - 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _real(digits: str) -> float:
    if len(digits) > 2 * MAX_DIGITS or not math.isfinite(number := float(digits)):
        raise ValueError("a number that is too large or too long")
    return number


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_whole, parse_float=_real)


def request(do: str, args: dict[str, Any], told: str = "") -> dict[str, Any]:
    """What a client sends."""
    return {"do": do, "args": args, "from": told} if told else {"do": do, "args": args}


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
