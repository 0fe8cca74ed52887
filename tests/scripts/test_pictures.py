"""Pictures get smaller and stay what they are."""

import io

import numpy as np
import pictures
from PIL import Image


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return file.getvalue()


def shown(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


def figure():
    """Three areas of colour, a soft edge, and paper that one sees through."""
    pixels = np.zeros((120, 200, 4), np.uint8)
    pixels[20:60, 20:90] = [0, 114, 178, 255]
    pixels[60:100, 60:160] = [230, 159, 0, 255]
    pixels[10:110, 170:180, :3], pixels[10:110, 170:180, 3] = 121, np.linspace(0, 255, 100, dtype=np.uint8)[:, None]
    return pixels


def test_a_figure_takes_fewer_bytes_and_looks_the_same():
    noisy = figure()
    noisy[..., 2] += np.random.default_rng(0).integers(0, 2, noisy.shape[:2], dtype=np.uint8) * (noisy[..., 3] > 0)
    whole = png(noisy)
    small = pictures.smaller(whole)
    assert len(small) < 0.6 * len(whole) and shown(small).shape == noisy.shape
    assert np.abs(shown(small)[..., 3] - noisy[..., 3].astype(int)).max() < 20
    seen = noisy[..., 3] == 255
    assert np.abs(shown(small)[seen][:, :3] - noisy[seen][:, :3].astype(int)).max() < 12


def test_what_would_not_get_smaller_stays_as_it_is():
    small = pictures.smaller(png(figure()))
    assert pictures.smaller(small) == small or len(pictures.smaller(small)) < len(small)
    dot = png(np.zeros((1, 1, 4), np.uint8))
    assert pictures.smaller(dot) == dot
