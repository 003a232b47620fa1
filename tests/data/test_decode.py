"""Test that images of every format are decoded upright and opaque, and that damaged files raise one line."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from s2snet.data import decode as decoding
from s2snet.data.decode import Damaged, decode

RAMP = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
PHOTO = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image: Image.Image, kind: str = "PNG", channels: int = 3, **options) -> np.ndarray:
    """Encode and decode the image, [H, W, C]."""
    return decode(encoded(image, kind, **options), channels).permute(1, 2, 0).numpy()


def test_a_file_and_its_bytes_are_the_same_tensor(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(path)
    image = decode(path)
    assert image.shape == (3, 6, 8) and image.dtype == torch.uint8 and image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(PHOTO).permute(2, 0, 1))
    assert torch.equal(decode(path.read_bytes()), image)


def test_grey_and_palette_and_one_bit():
    assert (pixels(Image.fromarray(RAMP)) == RAMP[..., None]).all()
    assert (pixels(Image.fromarray(RAMP), channels=1) == RAMP[..., None]).all()
    palette = Image.fromarray(PHOTO).quantize(64)
    assert (pixels(palette) == np.array(palette.convert("RGB"))).all()
    assert set(np.unique(pixels(Image.fromarray(RAMP > 100)))) == {0, 255}


def test_colour_becomes_grey_by_its_lightness():
    expected = PHOTO @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(Image.fromarray(PHOTO), channels=1)[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_images_lie_on_white(mode):
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, :3], alpha[:, 3:6] = 255, 128
    rgba = Image.fromarray(np.dstack([PHOTO * 0 + 40, alpha]))
    if mode == "PA":
        image = Image.fromarray(np.where(alpha > 128, 0, 1).astype(np.uint8), "P")
        image.putpalette([40, 40, 40, 200, 200, 200])
        decoded = pixels(image, transparency=1)
        assert (decoded[:, :3] == 40).all() and (decoded[:, 3:] == 255).all()
        return
    decoded = pixels(rgba.convert(mode))
    assert (decoded[:, :3] == 40).all() and (decoded[:, 6:] == 255).all()
    assert np.abs(decoded[:, 3:6].astype(int) - round(40 * 128 / 255 + 255 * 127 / 255)).max() <= 1


def test_a_colour_key_is_transparency_too():
    image = Image.fromarray(np.where(RAMP[..., None] > 100, [10, 20, 30], [200, 0, 0]).astype(np.uint8))
    decoded = pixels(image, transparency=(200, 0, 0))
    assert (decoded[RAMP <= 100] == 255).all() and (decoded[RAMP > 100] == [10, 20, 30]).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_has_the_colours_of_the_page(kind):
    """Adobe's JPEGs, which Pillow writes and reads, hold inverted values; TIFFs do not."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    content = encoded(red, kind)
    assert (b"Adobe" in content) == (kind == "JPEG")
    decoded = decode(content).float().mean((1, 2))
    assert decoded[0] > 240 and decoded[1] < 15 and decoded[2] < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    decoded = pixels(Image.fromarray(values), kind)
    assert (decoded == np.round(values / 257).astype(np.uint8)[..., None]).all()
    assert len(np.unique(decoded)) == 48


def test_sixteen_bit_tiffs_of_the_other_byte_order():
    values = np.linspace(0, 65535, 48).round().astype(">u2")
    entries = [(256, 3, 8), (257, 3, 6), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 96)]
    folder = struct.pack(">H", len(entries))
    for tag, kind, value in entries:
        folder += struct.pack(">HHI", tag, kind, 1) + (
            struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        )
    content = b"MM" + struct.pack(">HI", 42, 8 + 96) + values.tobytes() + folder + struct.pack(">I", 0)
    expected = np.round(values.astype(float) / 257).reshape(6, 8)
    assert (decode(content, channels=1)[0].numpy() == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, kind):
    """The stored image is the upright one rotated the other way; 5 to 8 swap the sides."""
    stored = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, 1),
        7: np.rot90(PHOTO, 2).transpose(1, 0, 2),
        8: np.rot90(PHOTO, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    assert (pixels(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif) == PHOTO).all()


def test_orientation_and_sixteen_bits_and_transparency_together():
    exif = Image.Exif()
    exif[274] = 6
    values = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    assert pixels(Image.fromarray(values), exif=exif).shape == (8, 6, 3)
    assert pixels(Image.fromarray(np.dstack([PHOTO, RAMP])), exif=exif).shape == (8, 6, 3)


def test_broken_exif_is_no_damage():
    content = encoded(Image.fromarray(PHOTO), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert (decode(content).permute(1, 2, 0).numpy() == PHOTO).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("black", "white")]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (pixels(frames[0], kind, save_all=True, append_images=frames[1:], **options) == 0).all()


def bomb(side: int) -> bytes:
    """Return a PNG whose header claims side x side pixels but which contains none."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8193, 10_000, 100_000])
def test_bombs_are_refused_before_a_pixel_is_decoded(side, monkeypatch):
    def load(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(Damaged, match="pixels") as error:
        decode(bomb(side), name="bomb.png")
    assert str(error.value).startswith("bomb.png: ")


def test_the_limit_counts_pixels(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 47)
    with pytest.raises(Damaged, match="expected at most 47 pixels, got 8 x 6 pixels"):
        pixels(Image.fromarray(PHOTO))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 48)
    assert (pixels(Image.fromarray(PHOTO)) == PHOTO).all()


WHOLE = {kind: encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), kind)
         for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM")}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files_are_damaged(kind):
    assert decode(WHOLE[kind]).shape == (3, 64, 64)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(Damaged) as error:
            decode(WHOLE[kind][: int(len(WHOLE[kind]) * share)], name=f"cut.{kind}")
        assert str(error.value).startswith(f"cut.{kind}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, line",
    [
        (b"", "it: empty file"),
        (b"no image, just words", "it: not an image in a supported format (JPEG, ..., PPM)"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "it: not an image in a supported format (JPEG, ..., PPM)",
        ),
        (encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF"), "it: 32-bit values have no known range"),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "it: floating-point values have no known range"),
    ],
)
def test_files_that_are_not_images_give_the_reason(content, line):
    with pytest.raises(Damaged) as error:
        decode(content, name="it")
    assert str(error.value) == line.replace("...", "PNG, GIF, BMP, TIFF, WEBP")


def test_missing_files_and_names_with_line_breaks(tmp_path):
    with pytest.raises(Damaged) as error:
        decode(tmp_path / "two\nlines.png")
    assert str(error.value) == f"{tmp_path}/two\\nlines.png: No such file or directory"
    with pytest.raises(Damaged, match="Is a directory"):
        decode(tmp_path)
