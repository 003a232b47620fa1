"""Decode image files of any common format to upright, opaque 8-bit pixels, or raise `Damaged`.

Files are not trusted: the size is checked before decoding, and only formats that Pillow decodes itself are opened
(EPS, for example, would start another program).
"""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**26  # 67 million, 201 MB decoded; larger files are taken for decompression bombs
BACKGROUND = "white"  # behind transparent images

# Pillow warns about files that are rejected here or that it can still decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Damaged(ValueError):
    """Raised for a file that is not a complete image; the message is one line, `NAME: reason`."""


def decode(source: Path | bytes, channels: int = 3, name: str = "") -> Tensor:
    """Return the image in a file, or in the bytes of a file, as uint8 [channels, H, W]; see `picture`."""
    pixels = np.array(picture(source, channels, name))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).contiguous()


def picture(source: Path | bytes, channels: int = 3, name: str = "") -> Image.Image:
    """Return the image as an upright, opaque 8-bit Pillow image with 3 channels (RGB) or 1 (gray, ITU-R 601).

    Gray values are repeated and palettes looked up. Transparent images are composited on BACKGROUND. CMYK is converted
    by Pillow's rule, without colour profiles but including the inverted CMYK of Adobe's JPEGs. 16 bits are scaled to 8,
    not clipped. The EXIF orientation is applied. Animations give their first frame.

    Args:
        source: A path, or the bytes of a file.
        channels: 3 or 1.
        name: Name of the file in error messages, for bytes.

    Raises:
        Damaged: If the file is missing, empty, truncated, not an image, or larger than MAX_PIXELS.
    """
    name = one_line(name or (str(source) if isinstance(source, Path) else "bytes"))
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        if not content:
            raise ValueError("empty file")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"expected at most {MAX_PIXELS:,} pixels, got {image.width} x {image.height} pixels")
            image.load()
            return _eight_bits(_upright(image)).convert("RGB" if channels == 3 else "L")
    except UnidentifiedImageError:
        raise Damaged(f"{name}: not an image in a supported format ({', '.join(FORMATS)})") from None
    except MemoryError:  # not the file's fault
        raise
    except Exception as error:  # Pillow's decoders raise many types for broken files: OSError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Damaged(f"{name}: {one_line(reason)[:200]}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert the image to eight bits per channel without transparency."""
    if image.mode.startswith("I"):  # 16-bit gray; `convert` would clip it
        values = np.array(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit values have no known range")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point values have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Rotate the image by its EXIF orientation; return it unchanged if the EXIF block is unreadable."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def one_line(text: str) -> str:
    """Escape line breaks and unprintable characters, which file names may contain."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
