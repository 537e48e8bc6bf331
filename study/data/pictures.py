"""From an encoded picture to pixels of the study's size, and from pixels to a picture."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from study.data.images import Record

# Named, so that Pillow never starts an external program (EPS) on a file that claims to be one.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow's decoders raise on broken files.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(record: Record, size: int) -> np.ndarray | str:
    """Pixels as uint8 of shape (3, size, size), or in one line why there are none."""
    try:
        content = record.load()
        pixels = content if isinstance(content, np.ndarray) else _pixels(content, size)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except Image.UnidentifiedImageError:
        # Its text holds the address of a buffer, different in each run.
        return "not a picture in a known format"
    except _UNREADABLE as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def refuse_bombs() -> Iterator[None]:
    """Make Pillow's warning on huge pictures an error, and silence its others.

    Filters are shared by all threads: enter once, around the threads that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _pixels(content: bytes, size: int) -> np.ndarray:
    """Decode, scale the short side to `size` (Lanczos) and crop the centre: (size, size, 3)."""
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            # Pillow would clip these to 8 bits: a white picture.
            raise ValueError(f"mode {image.mode}: must have 8 bits per channel")
        picture = image.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return np.asarray(picture.crop(box))
    # Computes the box alone: the exact centre, and a strip 1 x 100,000 does not fill the memory.
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))


def save_sheet(images: np.ndarray, columns: int, path: Path) -> None:
    """Save images (uint8 N 3 H W) as one PNG, row by row."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, channels, height, width), 255, dtype=np.uint8)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet.reshape(rows * height, columns * width, channels))
    picture.save(path, format="PNG", optimize=True)
