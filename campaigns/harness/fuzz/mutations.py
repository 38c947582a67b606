"""Ways to damage content: bytes, numbers in headers, tokens of JSON and tables."""

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


def flip_bits(data: bytes, random: Random) -> bytes:
    """Flip some bits."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if content:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(content)


def truncate(data: bytes, random: Random) -> bytes:
    """Remove the end or the beginning."""
    position: int = random.randrange(len(data) + 1)
    return data[:position] if random.random() < 0.8 else data[position:]


def copy_within(data: bytes, random: Random) -> bytes:
    """Copy a piece to another place, over the bytes there or between them."""
    a, b, c = (random.randrange(len(data) + 1) for _ in range(3))
    piece = data[min(a, b) : max(a, b)][: random.choice((4, 64, 4_096))]
    over = len(piece) if random.random() < 0.5 else 0
    return data[:c] + piece + data[c + over :]


def set_extreme_number(data: bytes, random: Random) -> bytes:
    """Replace a number, mostly near the start where headers are, by an extreme value."""
    size = random.choice((1, 2, 4, 8))
    reach = len(data) if random.random() < 0.3 else min(len(data), 256)
    if reach <= size:
        return data
    at = random.randrange(reach - size)
    value: int = random.choice(_EXTREMES) & (2 ** (8 * size) - 1)
    order: Literal["little", "big"] = random.choice(("little", "big"))
    number = value.to_bytes(size, order)
    return data[:at] + number + data[at + size :]


def replace_token(data: bytes, random: Random) -> bytes:
    """Replace a number, string or name in text."""
    tokens = list(re.finditer(rb'"[^"\n]{0,80}"|-?\d[\d.eE+-]*|[A-Za-z_]{2,40}', data[:65_536]))
    if not tokens:
        return flip_bits(data, random)
    token = random.choice(tokens)
    return data[: token.start()] + random.choice(_WORDS) + data[token.end() :]


def edit_json(data: bytes, random: Random) -> bytes:
    """Replace, remove, repeat or nest a value in JSON."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return replace_token(data, random)
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
        return replace_token(data, random)
    node, key = random.choice(places)
    operation = random.randrange(4)
    if operation == 0 and isinstance(node, dict):
        del node[key]
    elif operation == 1:
        other, at = random.choice(places)
        value = other.get(at) if isinstance(other, dict) else other[min(at, len(other) - 1)]
        node[key] = json.loads(json.dumps(value))
    else:
        node[key] = random.choice(
            (None, -1, 0, 1e308, -1e308, 2**63, "", "x" * 2_000, [], {}, [[]] * 50, True, 0.5,
             "../../x", {"a": {"b": []}}, [node[key]], {"x": node[key]}, str(node[key]))
        )  # fmt: skip
    return json.dumps(tree).encode()


BYTES: tuple[Mutation, ...] = (flip_bits, truncate, copy_within, set_extreme_number)
TEXT: tuple[Mutation, ...] = (replace_token, replace_token, edit_json, edit_json, *BYTES)


def mutate(data: bytes, mutations: Sequence[Mutation], random: Random) -> bytes:
    """Apply one to three mutations; return at most 4 MB."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(mutations)(data, random)
    return data[: 1 << 22]
