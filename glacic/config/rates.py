"""Step 3 of road 1, the small half of limits: rates as people write them, and as they are shown.

    "5 mbit"  "100 kbit/s"  "1.5 Gbit"        bits in a second, of 1000: kbit, mbit, gbit
    "8 Mibit"                                 bits, of 1024: Kibit, Mibit, Gibit
    "2 MB/s"  "50 kbytes/second"              bytes, of 1000: B, kB, MB, GB, bytes, kbytes, mbytes, gbytes
    "2 MiB/s" "64 KiB"                        bytes, of 1024: KiB, MiB, GiB, kibytes, mibytes, gibytes

A rate is of one second, said or not. What is written in two ways for two things is refused: a bare number, `mb` and
`Mb` (bits to some, bytes to others), `mbps` (bits, but bytes to tc(8)). Refuses to know where a text stood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from glacic.config.source import closest, did_you_mean
from glacic.config.values import Invalid

MIB = 1 << 20
RATE_MAX = (
    17 << 30
)  # bytes/s. nft_limit counts rate x 10^9 in 64 bits (net/netfilter/nft_limit.c): 17.18 GiB is too much
SLOW = 50 << 10  # bytes/s: below this a limit is known to be rough
BURST_MIN = 128 << 10  # bytes that any limit lets through at once: twice the largest packet, which GSO makes 64 KiB

_PREFIXES: Mapping[str, int] = MappingProxyType(
    {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
)
_WORDS: Mapping[str, Fraction] = MappingProxyType(
    {"bit": Fraction(1, 8), "bits": Fraction(1, 8), "byte": Fraction(1), "bytes": Fraction(1)}
)
_UNITS: Mapping[str, Fraction] = MappingProxyType(
    {prefix + word: factor * size for prefix, factor in _PREFIXES.items() for word, size in _WORDS.items()}
)
_SHOWN = {"": "", "k": "k", "m": "M", "g": "G", "ki": "Ki", "mi": "Mi", "gi": "Gi"}
_KNOWN = (*_UNITS, *(f"{shown}B" for shown in _SHOWN.values()))
_LONG = {"kilo": "k", "mega": "m", "giga": "g", "kibi": "ki", "mebi": "mi", "gibi": "gi"}  # said, and not written
_SECONDS = frozenset({"s", "sec", "second"})
_NONE = frozenset({"none", "unlimited", "infinite", "infinity", "max", "no", "off"})
_FORM = re.compile(r"\s*([+-]?)([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*(?:/\s*([A-Za-z]*)\s*)?", re.ASCII)

EXAMPLES = '"5 mbit", or "2 MiB/s"'


def parse_rate(text: str) -> int:
    """Bytes per second, 1..RATE_MAX; a part of a byte is cut off. Raises Invalid."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Invalid(f'"{text}" is not a rate', _advice(text))
    sign, number, unit, time = found.groups()
    if sign == "-" or not Fraction(number):
        raise Invalid(f'"{text}" lets nothing through', "write a rate above zero, or leave it out for no limit")
    if not unit:
        raise Invalid(f'"{text}" has no unit', f'write "{number} mbit" for bits, or "{number} MB/s" for bytes')
    size = _size(number, unit)
    if time is not None and time.lower() not in _SECONDS:
        raise Invalid(f'"{text}" is not by the second', f'a rate is of one second: write "{number} {unit}/s"')
    rate = Fraction(number) * size
    if rate < 1:
        raise Invalid(f'"{text}" is less than a byte per second', f"write {EXAMPLES}")
    if rate > RATE_MAX:
        raise Invalid(f'"{text}" is more than {RATE_MAX >> 30} GiB/s', "the kernel cannot count that: write less")
    return int(rate)


def _size(number: str, unit: str) -> Fraction:
    """Bytes in one of this unit."""
    word = unit.lower()
    if word in _UNITS:
        return _UNITS[word]
    prefix = word[:-1]
    if word.endswith("b") and prefix in _PREFIXES:
        if unit.endswith("B"):
            return Fraction(_PREFIXES[prefix])
        raise Invalid(f'"{unit}" is bits to some and bytes to others', _both(number, prefix))
    prefix = word.removesuffix("ps").removesuffix("b")
    if word.endswith("bps") and prefix in _PREFIXES:
        raise Invalid(f'"{unit}" is bits to some and bytes to others, tc among them', _both(number, prefix))
    short = next((word.replace(long, prefix, 1) for long, prefix in _LONG.items() if word.startswith(long)), unit)
    raise Invalid(f'"{unit}" is not a unit of a rate', did_you_mean(short, _KNOWN) or f"write {EXAMPLES}")


def _both(number: str, prefix: str) -> str:
    shown = _SHOWN[prefix]
    return f'write "{number} {shown if len(shown) > 1 else prefix}bit" for bits, or "{number} {shown}B/s" for bytes'


def _advice(text: str) -> str:
    word = text.strip().lower()
    if word in _NONE:
        return "leave it out for no limit"
    if re.match(r"\s*[0-9]+,[0-9]", text):
        return f'write the decimal point as a point, "{text.strip().replace(",", ".", 1)}"'
    if word.isalpha() and (meant := closest(word, _KNOWN)):
        return f'write a number before it, "5 {meant[0]}"'
    return f"write {EXAMPLES}"


def rate_text(rate: int) -> str:
    """Both ways: `2 MiB/s (16.8 Mbit/s)`. rate: bytes per second."""
    return f"{bytes_text(rate)}/s ({_scaled(rate * 8, 1000, ('', 'k', 'M', 'G'))}bit/s)"


def bytes_text(count: float) -> str:
    """`2 MiB`, `612 KiB`, `17 B`: three digits."""
    return f"{_scaled(count, 1024, ('', 'Ki', 'Mi', 'Gi', 'Ti'))}B"


def exact_text(rate: int) -> str:
    """The shortest text that parse_rate reads as exactly this rate: `5 mbit`, `2 MiB/s`, `12345 B/s`."""
    for prefix, unit in (
        ("gi", "GiB/s"),
        ("g", "gbit"),
        ("mi", "MiB/s"),
        ("m", "mbit"),
        ("ki", "KiB/s"),
        ("k", "kbit"),
    ):
        each = _PREFIXES[prefix] * (1 if unit.endswith("B/s") else Fraction(1, 8))
        if rate % each == 0:
            return f"{rate // each} {unit}"
    return f"{rate} B/s"


def why_rough(rate: int) -> str:
    """Why a rate below SLOW is held only roughly, for the person who asked for it."""
    burst_s = BURST_MIN / rate
    return (
        f"the kernel's packets are up to 64 KiB, so any limit lets {BURST_MIN >> 10} KiB through at once, "
        f"here {burst_s:.0f} seconds' worth, and then TCP waits and tries again: expect bursts and stalls"
    )


def _scaled(value: float, step: int, prefixes: tuple[str, ...]) -> str:
    """`value` with the largest prefix that leaves it 1 or more, three digits, no zeros at the end."""
    scaled, at = float(value), 0
    while round(scaled, 1 if scaled < 100 else 0) >= step and at + 1 < len(prefixes):
        scaled, at = scaled / step, at + 1
    digits = 0 if at == 0 or scaled >= 100 else 1 if scaled >= 10 else 2
    text = f"{scaled:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {prefixes[at]}"
