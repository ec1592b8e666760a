"""Films decode again: their frames, sizes, tempo and colours."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from studio.render.film import fitted, gif_bytes, mp4_bytes

ORANGE, GREEN, PAPER = (224, 103, 20), (16, 133, 101), (226, 236, 245)


def frames(n, height=60, width=80):
    """Return pictures of a bar that moves to the right, in one of two colours, over a still ground."""
    made = np.full((n, height, width, 3), PAPER, dtype=np.uint8)
    for index in range(n):
        made[index, 10:30, 8 * index : 8 * index + 8] = ORANGE if index % 2 else GREEN
    return list(made)


def played(data):
    with Image.open(io.BytesIO(data)) as film:
        shown, times = [], []
        for index in range(getattr(film, "n_frames", 1)):
            film.seek(index)
            shown.append(np.asarray(film.convert("RGB")))
            times.append(film.info["duration"])
        return shown, times, film.info.get("loop")


def decoded(data):
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data)) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        stream = film.streams.video[0]
        return shown, stream.codec_context.name, stream.codec_context.pix_fmt, float(stream.average_rate)


def test_a_gif_keeps_colours_order_and_tempo():
    given = frames(6)
    shown, times, loop = played(gif_bytes(given, 3.0))
    assert len(shown) == 6 and loop == 0
    assert times == [500] * 5 + [1500]
    assert all(np.array_equal(one, fitted(other)) for one, other in zip(shown, given, strict=True))


def test_what_stands_still_in_a_gif_does_not_flicker():
    """A thousand colours in the still half and other ones in the moving half: the still half stays the same."""
    noise = np.random.default_rng(0)
    still = noise.integers(0, 256, (400, 200, 3), dtype=np.uint8)
    moving = noise.integers(0, 256, (5, 400, 200, 3), dtype=np.uint8)
    shown, _, _ = played(gif_bytes([np.concatenate([still, part], axis=1) for part in moving], 1.0))
    assert all(np.array_equal(frame[:, :200], shown[0][:, :200]) for frame in shown)
    assert not np.array_equal(shown[0][:, 200:], shown[1][:, 200:])


def test_an_mp4_plays_everywhere():
    pytest.importorskip("av")
    given = frames(6, height=65, width=81)
    shown, codec, pixels, rate = decoded(mp4_bytes(given, 3.0))
    assert (codec, pixels, rate) == ("h264", "yuv420p", 2.0)
    assert len(shown) == 6 + 2
    assert shown[0].shape == (326, 406, 3), "five times as large, and even"
    for one, other in zip(shown, [*given, given[-1], given[-1]], strict=True):
        large = fitted(other).astype(int)
        assert np.abs(one[: large.shape[0], : large.shape[1]] - large).mean() < 8


@pytest.mark.parametrize("side", [480, 960])
def test_the_colours_of_an_mp4_are_said_in_it(side):
    av = pytest.importorskip("av")
    flat = np.full((side, side, 3), ORANGE, dtype=np.uint8)
    with av.open(io.BytesIO(mp4_bytes([flat], 1.0))) as film:
        codec, frame = film.streams.video[0].codec_context, next(film.decode(video=0))
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)
        right = frame.reformat(format="rgb24", src_colorspace=1, dst_color_range=2).to_ndarray()
    assert np.abs(right.astype(int) - ORANGE).max() < 8


def test_large_pictures_are_shrunk_and_small_ones_enlarged_by_whole_factors():
    assert fitted(np.zeros((2000, 1000, 3), np.uint8)).shape == (960, 480, 3)
    assert fitted(np.zeros((130, 100, 3), np.uint8)).shape == (390, 300, 3)
    middle = np.zeros((960, 500, 3), np.uint8)
    assert fitted(middle) is middle and fitted(fitted(middle)) is middle


@pytest.mark.parametrize("write", [gif_bytes, mp4_bytes])
def test_one_frame_is_a_film_and_none_or_unlike_ones_are_not(write):
    pytest.importorskip("av")
    assert len(write(frames(1), 1.0)) > 100
    with pytest.raises(ValueError, match="at least one picture"):
        write([], 1.0)
    with pytest.raises(ValueError, match="of one size"):
        write([*frames(1), *frames(1, width=40)], 1.0)


def test_without_its_package_an_mp4_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        mp4_bytes(frames(2), 1.0)
