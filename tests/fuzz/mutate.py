"""The mutator: a whole text in, a damaged one out, the same for the same seed."""

import random
import re

from corpus import TOKENS

_PIECE = re.compile(r"[\w.+-]+|\s+|.", re.DOTALL)


def mutated(text: str, draw: random.Random) -> bytes:
    """Return `text` with one to four kinds of damage."""
    raw = text.encode()
    for _ in range(draw.randint(1, 4)):
        raw = draw.choice(_KINDS)(raw, draw)
    return raw


def _cut(raw: bytes, draw: random.Random) -> bytes:
    return raw[: draw.randint(0, len(raw))]


def _bit(raw: bytes, draw: random.Random) -> bytes:
    if not raw:
        return raw
    at = draw.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :]


def _token(raw: bytes, draw: random.Random) -> bytes:
    pieces = _PIECE.findall(raw.decode("utf-8", "replace"))
    if not pieces:
        return raw
    pieces[draw.randrange(len(pieces))] = draw.choice(TOKENS)
    return "".join(pieces).encode("utf-8", "surrogatepass")


def _doubled(raw: bytes, draw: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    if not lines:
        return raw
    at = draw.randrange(len(lines))
    return b"".join(lines[:at] + [lines[at]] * draw.choice((2, 2, 50)) + lines[at + 1 :])


def _swapped(raw: bytes, draw: random.Random) -> bytes:
    pieces = _PIECE.findall(raw.decode("utf-8", "replace"))
    if len(pieces) < 2:
        return raw
    one, other = draw.randrange(len(pieces)), draw.randrange(len(pieces))
    pieces[one], pieces[other] = pieces[other], pieces[one]
    return "".join(pieces).encode("utf-8", "surrogatepass")


_KINDS = (_cut, _bit, _token, _token, _token, _doubled, _swapped)
