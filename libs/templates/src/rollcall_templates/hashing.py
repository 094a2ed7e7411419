"""Azure's hashes: `uniqueString`, `guid` and a template's hash give here what they give there.

The hash of `uniqueString` is a 64-bit variant of MurmurHash3, as in Azure.Deployments.Expression
(MIT), which Microsoft publishes as a package.
"""

import json
import uuid
from typing import Any

_MASK = 0xFFFFFFFF
_LONG = 0xFFFFFFFFFFFFFFFF
_ONE, _TWO = 0x239B961B, 0xAB0E9789
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_GUIDS = uuid.UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830")  # the namespace of `guid`


def unique_string(*parts: str) -> str:
    """Return 13 characters that depend on the parts alone."""
    value = murmur("-".join(parts).encode())
    text = ""
    for _ in range(13):
        text += _LETTERS[value >> 59]
        value = (value << 5) & _LONG
    return text


def guid(*parts: str) -> str:
    """Return an id in the form of a GUID that depends on the parts alone."""
    return str(uuid.uuid5(_GUIDS, "-".join(parts)))


def template_hash(template: Any) -> str:
    """Return a template's hash: a number of up to 20 digits, whatever its white space and case."""
    minified = json.dumps(template, separators=(",", ":"), ensure_ascii=False)
    return str(murmur(minified.upper().encode()))


def murmur(data: bytes) -> int:
    """Return the 64-bit hash of bytes."""
    first = second = 0
    blocks = len(data) // 8 * 8
    for place in range(0, blocks, 8):
        low = int.from_bytes(data[place : place + 4], "little")
        high = int.from_bytes(data[place + 4 : place + 8], "little")
        first = _turn(first ^ _scramble(low, _ONE, 15, _TWO), 19)
        first = ((first + second) * 5 + 0x561CCD1B) & _MASK
        second = _turn(second ^ _scramble(high, _TWO, 17, _ONE), 13)
        second = ((second + first) * 5 + 0x0BCAA747) & _MASK
    rest = data[blocks:]
    if rest:
        first ^= _scramble(int.from_bytes(rest[:4], "little"), _ONE, 15, _TWO)
    if len(rest) > 4:
        second ^= _scramble(int.from_bytes(rest[4:], "little"), _TWO, 17, _ONE)
    first, second = _add(first ^ len(data), second ^ len(data))
    first, second = _add(_finish(first), _finish(second))
    return second << 32 | first


def _add(first: int, second: int) -> tuple[int, int]:
    first = (first + second) & _MASK
    return first, (second + first) & _MASK


def _scramble(value: int, before: int, bits: int, after: int) -> int:
    return _turn(value * before & _MASK, bits) * after & _MASK


def _turn(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> (32 - bits)) & _MASK


def _finish(value: int) -> int:
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16
