"""Smaller PNGs: figures have few colours, so each pixel is stored as a number of one of 256 of them.

smaller(png) -> png        a third of the bytes; the same picture but for the rarest shades of the edges of letters
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE, COLOURS, MOST = b"\x89PNG\r\n\x1a\n", 256, 20_000  # a photograph has more shades than a figure


def smaller(png: bytes) -> bytes:
    """The PNG with a palette, or as it was: if it is of another kind than Chromium's (8 bits, RGBA), or no smaller."""
    chunks = _chunks(png)
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if kind != [8, 6, 0, 0, 0]:
        return png
    pixels = _unfiltered(np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 4 * width))
    shades = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True, return_counts=True)
    if len(shades[0]) > MOST:
        return png
    palette, which = _in_few_colours(*shades)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), which.reshape(height, width)], axis=1)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": palette[:, :3].tobytes(),
        b"tRNS": palette[:, 3].tobytes(),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    result = SIGNATURE + b"".join(_packed(name, data) for name, data in parts.items())
    return min(result, png, key=len)


def _in_few_colours(found: np.ndarray, which: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(colours, RGBA), (pixels,): shades that leave none far away, and for every pixel the one nearest to its own.

    The commonest, and then again and again the one that is farthest from all chosen.
    """
    alpha = found[:, 3:] / 255.0
    seen = np.concatenate([found[:, :3] * alpha, found[:, :3] * alpha + 255 - found[:, 3:]], axis=1)  # on black, white
    chosen = list(np.argsort(-counts, kind="stable")[: COLOURS // 4])
    apart = np.min([((seen - seen[one]) ** 2).sum(axis=1) for one in chosen], axis=0)
    while len(chosen) < COLOURS and apart.max() > 0:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, ((seen - seen[chosen[-1]]) ** 2).sum(axis=1))
    nearest = ((seen[:, None] - seen[None, chosen]) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    return found[chosen], nearest[which.reshape(-1)]


def _unfiltered(lines: np.ndarray) -> np.ndarray:
    """Pixels (height, width × 4) of lines that begin with the number of their filter. Source: PNG, section 9."""
    above = [0] * (lines.shape[1] - 1)
    result = []
    for kind, *line in lines.tolist():
        for x, value in enumerate(line):
            left, corner = (line[x - 4], above[x - 4]) if x >= 4 else (0, 0)
            line[x] = (value + _guess(kind, left, above[x], corner)) & 255
        above = line
        result.append(line)
    return np.array(result, np.uint8)


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 3:
        return (0, left, up)[kind]
    if kind == 3:
        return (left + up) // 2
    return min((left, up, corner), key=lambda one: abs(left + up - corner - one))  # the first of the nearest (Paeth)


def _chunks(png: bytes) -> dict[bytes, bytes]:
    """Name -> data; what is in several parts is put together."""
    found: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name = png[at + 4 : at + 8]
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def _packed(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
