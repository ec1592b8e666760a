"""Pictures into films: an animated GIF, and an H.264 MP4 that browsers and slides play."""

__all__ = ["fitted", "gif_bytes", "mp4_bytes"]

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from studio.render.raster import enlarge

SIDE, LARGEST = 480, 960
HOLD = 1.0
FASTEST = 30
# The number of BT.709 among the colours of H.264.
BT709 = 1


def gif_bytes(frames: Sequence[UInt8[np.ndarray, "h w 3"]], seconds: float) -> bytes:
    """Return frames as a GIF that takes about `seconds`, holds its last frame a second longer, and starts again.

    All frames share one palette and none is dithered, so that what stands still does not flicker. Raises `ValueError`
    where there is no frame or their sizes differ.
    """
    pictures = _alike(frames)
    # Quantised as one tall picture, as Pillow maps pictures to a given palette only roughly.
    tall = Image.fromarray(np.concatenate(pictures)).quantize(256, dither=Image.Dither.NONE)
    height, width = pictures[0].shape[:2]
    drawn = [tall.crop((0, top, width, top + height)) for top in range(0, tall.height, height)]
    gap = max(20, 10 * round(100 * seconds / len(drawn)))
    gaps = [gap] * (len(drawn) - 1) + [gap + round(1000 * HOLD)]
    buffer = io.BytesIO()
    drawn[0].save(buffer, format="GIF", save_all=True, append_images=drawn[1:], duration=gaps, loop=0, optimize=False)
    return buffer.getvalue()


def mp4_bytes(frames: Sequence[UInt8[np.ndarray, "h w 3"]], seconds: float) -> bytes:
    """Return frames as an H.264 film in an MP4 that takes about `seconds` and holds its last frame a second longer.

    Raises `ValueError` where there is no frame, their sizes differ, or the package `av` is missing.
    """
    try:
        import av
        from av.video.reformatter import Colorspace
    except ImportError as error:
        raise ValueError("MP4 needs the av package: pip install av") from error
    pictures = [_even(frame) for frame in _alike(frames)]
    rate = min(max(round(len(pictures) / max(seconds, 1e-3)), 1), FASTEST)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=rate, options={"crf": "17", "preset": "medium"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        # Said in the file, as players guess the colours of large films otherwise than those of small ones.
        codec = stream.codec_context
        codec.colorspace, codec.color_primaries, codec.color_trc = Colorspace.ITU709, BT709, BT709
        for picture in [*pictures, *[pictures[-1]] * round(HOLD * rate)]:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            film.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        film.mux(stream.encode())
    return buffer.getvalue()


def fitted(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame as a film shows it: small ones enlarged by a whole factor, sides over 960 pixels shrunk."""
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest <= LARGEST:
        return enlarge(frame, SIDE)
    size = (max(1, round(width * LARGEST / longest)), max(1, round(height * LARGEST / longest)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _alike(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the frames as they are shown; none, or unlike sizes, is a `ValueError`."""
    if not frames:
        raise ValueError("a film needs at least one picture: run the study first")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("the pictures of a film must be of one size: export each as a PNG")
    return [fitted(frame) for frame in frames]


def _even(frame: np.ndarray) -> np.ndarray:
    """Return a frame with an even number of rows and columns, as H.264 wants: the last one may be doubled."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
