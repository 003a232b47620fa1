"""Tar shards of made-up images, honest and otherwise: what tests of data and training share."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int, height: int = 24, width: int = 24) -> bytes:
    """A small picture of random patches, another for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encoded(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def member(name: str, content: bytes | str = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    """A member; `fields` set what its header claims (type, linkname, size)."""
    content = content.encode() if isinstance(content, str) else content
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return path


def pictures(first: int, count: int, labels: int | None = None) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members of `count` samples, with labels 0, 1, ... below `labels` alternately in .cls and .json, or without."""
    found = []
    for number in range(first, first + count):
        found.append(member(f"{number:06d}.jpg", jpeg(number)))
        if labels:
            label = number % labels
            name, text = ("cls", str(label)) if number % 2 else ("json", json.dumps({"label": label}))
            found.append(member(f"{number:06d}.{name}", text))
    return found


def write_shards(folder: Path, shards: int, each: int, labels: int | None = None) -> Path:
    """`shards` shards in a folder; no two pictures of all of them are alike."""
    for number in range(shards):
        write_tar(folder / f"shard-{number:03d}.tar", pictures(number * each, each, labels))
    return folder
