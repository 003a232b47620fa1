"""From an image file to its pixels: any common format, as the eye should see it, or `Damaged`.

What comes from outside is not trusted: size is checked before a pixel is decoded, and only formats that Pillow reads
by itself are opened (EPS, for one, would start another program).
"""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 2**26  # 67 million, 201 MB decoded; a decompression bomb has more
BACKGROUND = "white"  # what transparent images lie on, as on a page

# Pillow warns of what is refused here, or read as well as it can be.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Damaged(ValueError):
    """A file that is not a whole image; the text is `NAME: reason`, one line."""


def decode(source: Path | bytes, channels: int = 3, name: str = "") -> Tensor:
    """The image in a file, or in a file's bytes, as uint8 [channels, H, W]; see `picture`."""
    pixels = np.array(picture(source, channels, name))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).contiguous()


def picture(source: Path | bytes, channels: int = 3, name: str = "") -> Image.Image:
    """The same as Pillow holds it: eight bits, upright, opaque; channels 3 (RGB) or 1 (grey, ITU-R 601).

    Grey and palette images are repeated or looked up; transparent ones are laid on BACKGROUND; CMYK is turned to RGB
    by Pillow's rule (no colour profile; the inverted CMYK of Adobe's JPEGs is seen to); 16 bits are scaled to 8, not
    clipped; EXIF orientation is applied; of an animation the first frame counts. `name` says in a message where bytes
    came from. Damaged for a file that is missing, empty, truncated, no image, or has more than MOST_PIXELS.
    """
    name = one_line(name or (str(source) if isinstance(source, Path) else "bytes"))
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        if not content:
            raise ValueError("empty file")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are decoded")
            image.load()
            return _eight_bits(_upright(image)).convert("RGB" if channels == 3 else "L")
    except UnidentifiedImageError:
        raise Damaged(f"{name}: not an image ({', '.join(FORMATS)})") from None
    except MemoryError:  # not the file's fault
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them: OSError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Damaged(f"{name}: {one_line(reason)[:200]}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in eight bits per channel and without transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip it
        values = np.array(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit values, of no known range")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point values, of no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where the EXIF block cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def one_line(text: str) -> str:
    """The text with line ends and what cannot be shown escaped: a file's name may hold anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
