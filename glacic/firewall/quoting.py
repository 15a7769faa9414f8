"""Road 1: the one place where text from outside becomes nft text: quoted strings, identifiers, comments.

Names come from HCL and may hold any printable character. An nft string has no escapes: it ends at the next `"`, and
the lexer joins a line that ends in a backslash to the next one. So what cannot stand in a string is replaced, never
escaped. Refuses to let anything through that could end the place it stands in.
"""

from __future__ import annotations

import re
from hashlib import sha256

from glacic.config.model import DROP_FORWARD, DROP_INPUT

MAX_COMMENT = 128  # bytes; NFTNL_UDATA_COMMENT_MAXLEN in libnftnl/udata.h
MAX_PREFIX = 127  # bytes; NF_LOG_PREFIXLEN is 128 with the closing NUL (linux/netfilter/nf_log.h)
_MAX_PLAIN = 64  # characters of an identifier that are taken over from a name
_MAX_REMARK = 500  # characters of a name or a description in a comment of the script
_HASH_DIGITS = 8

_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_LOOKS_HASHED = re.compile(rf"_[0-9a-f]{{{_HASH_DIGITS}}}$")
_RESERVED = (DROP_INPUT, DROP_FORWARD)
_HARMLESS = {'"': "'", "\\": "/"}


def quote(text: str, max_bytes: int = MAX_COMMENT) -> str:
    """`text` as an nft string, quotes included, cut to `max_bytes` of UTF-8.

    A double quote becomes a single one, a backslash a slash, what is not printable a question mark.
    """
    return f'"{_cut(printable(text), max_bytes)}"'


def quote_prefix(text: str) -> str:
    """`text` as a log prefix: a quoted string in which, unlike in any other, nft looks for `$variables`.

    The prefix of a policy's hook has to be its name to the letter, so validation refuses a `$` there; here it is only
    kept from doing harm.
    """
    return quote(text.replace("$", "?"), MAX_PREFIX)


def printable(text: str) -> str:
    """`text` without anything that could end a string, a comment or a line of the script."""
    return "".join(_HARMLESS.get(char, char if char.isprintable() else "?") for char in text)


def remark(text: str) -> str:
    """`text` as part of a `#` comment: one line of bounded length, whatever it holds."""
    return printable(text[:_MAX_REMARK])


def identifier(name: str) -> str:
    """A name as part of an nft identifier: letters, digits and `_`, a different one for every name.

    A plain name stays as it is. Any other gets its foreign characters replaced and a hash appended, and so does one
    that looks as if it had been hashed, or contains a reserved name (those have chains of their own, with suffixes).
    The caller puts a prefix before it, so that no keyword of nft and no leading digit is met.
    """
    plain = _PLAIN.fullmatch(name) and len(name) <= _MAX_PLAIN and not _LOOKS_HASHED.search(name)
    if plain and (name in _RESERVED or not any(reserved in name for reserved in _RESERVED)):
        return name
    digest = sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{re.sub('[^A-Za-z0-9_]', '_', name)[:_MAX_PLAIN]}_{digest}"


def rule_identifier(policy: str, rule: str) -> str:
    """The name of a policy's rule as part of an nft identifier, a different one for every rule of every policy."""
    parts = identifier(rule), identifier(policy)
    if not any("_of_" in f"_{part}_" for part in parts):
        return "_of_".join(parts)
    # Where one begins and the other ends would be anybody's guess. No name holds a line break.
    return identifier(f"{rule}\n{policy}")


def _cut(text: str, max_bytes: int) -> str:
    """`text` cut to `max_bytes` bytes of UTF-8, never within a character."""
    return text.encode()[:max_bytes].decode(errors="ignore")
