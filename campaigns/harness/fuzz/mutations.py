"""Damage to files: of bytes, of numbers in headers, of words in JSON and tables."""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

Mutation = Callable[[bytes, Random], bytes]

_EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    b"", b"0", b"-1", b"1e999", b"NaN", b"nan", b"Infinity", b"null", b"true", b"[]", b"{}",
    b'""', b"99999999999999999999", b"1e-320", b"../../../../etc/passwd", b"/dev/zero", b"\x00",
    b"\\ud800", b"<script>alert(1)</script>", b"'; drop table answers; --", b"\xff\xfe",
    b"\xe2\x80\xae", b"%s%n", b"A" * 5_000, b"[" * 3_000, b'{"a":' * 1_000, b"\r\n", b",", b'"',
)  # fmt: skip


def flipped(data: bytes, random: Random) -> bytes:
    """Some bits turned."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if made:
            made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def cut(data: bytes, random: Random) -> bytes:
    """Cut short, or begun late."""
    at: int = random.randrange(len(data) + 1)
    return data[:at] if random.random() < 0.8 else data[at:]


def spliced(data: bytes, random: Random) -> bytes:
    """A piece of it written somewhere else in it, over what was there or between."""
    a, b, c = (random.randrange(len(data) + 1) for _ in range(3))
    piece = data[min(a, b) : max(a, b)][: random.choice((4, 64, 4_096))]
    over = len(piece) if random.random() < 0.5 else 0
    return data[:c] + piece + data[c + over :]


def extreme(data: bytes, random: Random) -> bytes:
    """A number near the beginning, where headers are, made as large or small as can be."""
    size = random.choice((1, 2, 4, 8))
    reach = len(data) if random.random() < 0.3 else min(len(data), 256)
    if reach <= size:
        return data
    at = random.randrange(reach - size)
    value: int = random.choice(_EXTREMES) & (2 ** (8 * size) - 1)
    order: Literal["little", "big"] = random.choice(("little", "big"))
    number = value.to_bytes(size, order)
    return data[:at] + number + data[at + size :]


def worded(data: bytes, random: Random) -> bytes:
    """A number, a string or a name in text made another."""
    found = list(re.finditer(rb'"[^"\n]{0,80}"|-?\d[\d.eE+-]*|[A-Za-z_]{2,40}', data[:65_536]))
    if not found:
        return flipped(data, random)
    it = random.choice(found)
    return data[: it.start()] + random.choice(_WORDS) + data[it.end() :]


def restructured(data: bytes, random: Random) -> bytes:
    """JSON with a value somewhere in it replaced, dropped, repeated or nested."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return worded(data, random)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any, depth: int) -> None:
        keys: Sequence[Any] = ()
        if isinstance(node, dict):
            keys = list(node)
        elif isinstance(node, list):
            keys = range(min(len(node), 40))
        for key in keys:
            places.append((node, key))
            if depth < 8:
                walk(node[key], depth + 1)

    walk(tree, 0)
    if not places:
        return worded(data, random)
    node, key = random.choice(places)
    way = random.randrange(4)
    if way == 0 and isinstance(node, dict):
        del node[key]
    elif way == 1:
        other, at = random.choice(places)
        value = other.get(at) if isinstance(other, dict) else other[min(at, len(other) - 1)]
        node[key] = json.loads(json.dumps(value))
    else:
        node[key] = random.choice(
            (None, -1, 0, 1e308, -1e308, 2**63, "", "x" * 2_000, [], {}, [[]] * 50, True, 0.5,
             "../../x", {"a": {"b": []}}, [node[key]], {"x": node[key]}, str(node[key]))
        )  # fmt: skip
    return json.dumps(tree).encode()


BYTES: tuple[Mutation, ...] = (flipped, cut, spliced, extreme)
TEXT: tuple[Mutation, ...] = (worded, worded, restructured, restructured, *BYTES)


def mutated(data: bytes, mutations: Sequence[Mutation], random: Random) -> bytes:
    """One to three kinds of damage, one after the other; 4 MB at most."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(mutations)(data, random)
    return data[: 1 << 22]
