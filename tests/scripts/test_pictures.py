"""Pictures get smaller and stay what they are."""

import struct
import zlib

import numpy as np
import pictures


def png(pixels, filters=(0,), kind=6):
    """A PNG of RGBA pixels (height, width, 4), its lines filtered in turn by `filters`."""
    height, width, _ = pixels.shape
    flat, lines = pixels.reshape(height, -1).astype(int), []
    for y in range(height):
        used, line = filters[y % len(filters)], []
        above = flat[y - 1] if y else np.zeros(4 * width, int)
        for x in range(4 * width):
            left, corner = (flat[y][x - 4], above[x - 4]) if x >= 4 else (0, 0)
            line.append((flat[y][x] - pictures._guess(used, left, above[x], corner)) % 256)
        lines.append(bytes([used, *line]))
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines), 0)), (b"IEND", b"")]
    return pictures.SIGNATURE + b"".join(pictures._packed(*part) for part in parts)


def shown(small):
    """The RGBA pixels of a PNG with a palette."""
    chunks = pictures._chunks(small)
    width, height, _, kind, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert kind == 3
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    alpha = np.frombuffer(chunks[b"tRNS"], np.uint8)[:, None]
    which = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width)[:, 1:]
    return np.concatenate([palette, alpha], axis=1)[which]


def test_a_picture_of_few_colours_is_the_same_whatever_its_filters():
    colours = np.random.default_rng(0).integers(0, 256, (40, 4), dtype=np.uint8)
    pixels = colours[np.random.default_rng(1).integers(0, 40, (10, 50))]
    for filters in [(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4)]:
        whole = png(pixels, filters)
        small = pictures.smaller(whole)
        assert len(small) < len(whole) / 2
        assert np.array_equal(shown(small), pixels), filters


def test_rare_shades_become_the_nearest_common_one():
    grey = np.arange(256, dtype=np.uint8).repeat(40).reshape(-1, 1)
    pixels = np.concatenate([grey, grey, grey, np.full_like(grey, 255)], axis=1)
    pixels[:2] = [[200, 201, 200, 255], [0, 0, 1, 255]]
    result = shown(pictures.smaller(png(pixels.reshape(64, 160, 4)))).reshape(-1, 4)
    assert result[:2].tolist() == [[200, 200, 200, 255], [0, 0, 0, 255]]
    assert np.array_equal(result[2:], pixels[2:])


def test_other_kinds_of_pictures_stay_as_they_are():
    whole = png(np.zeros((2, 2, 4), np.uint8), kind=2)
    assert pictures.smaller(whole) == whole
