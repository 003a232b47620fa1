"""Keep the codes of the frozen encoder over the epochs: stage 2 without augmentation computes each image's once."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from s2snet.models.segnet import Code


class Codes:
    """The code of each training image and the label to learn, by the image's index.

    An image takes the bottleneck's bytes, two bits for each pooling window and eight bytes for the label. What is read
    is what was written, bit for bit. Kept in memory, or with a `folder` in an unnamed file there that ends with the
    process: an interrupted run leaves nothing stale, and a resumed one fills it again. Each of the `processes` keeps
    its own. ValueError if `count` images do not fit.
    """

    def __init__(self, count: int, processes: int = 1, folder: Path | None = None):
        self.count, self.processes, self.folder = count, processes, folder
        self.rows: dict[int, Tensor | int] = {}  # the bytes, or their position in the file
        self.file: BinaryIO | None = None
        self.size = 0  # bytes of a row
        self.like: Code | None = None  # a code of no images: shapes, type, memory format

    def put(self, index: Tensor, code: Code, labels: Tensor) -> None:
        """Keep the code and the label of each image that is not there yet."""
        packed = torch.cat([as_bytes(code.bottleneck), pack(code), as_bytes(labels[:, None])], dim=1).cpu()
        if self.like is None:
            self.like = Code(code.bottleneck[:0], tuple(where[:0] for where in code.indices), code.sizes)
            self.size = packed.shape[1]
            self._fits()
        for image, row in zip(index.tolist(), packed, strict=True):
            if image in self.rows:
                continue
            if self.folder is None:
                self.rows[image] = row.clone()
            else:
                self._write(len(self.rows) * self.size, row)
                self.rows[image] = len(self.rows) * self.size

    def get(self, index: Tensor) -> tuple[Code, Tensor] | None:
        """Return the codes and labels of these images on the device of `index`, or None unless all are there."""
        rows = [self.rows.get(image) for image in index.tolist()]
        if any(row is None for row in rows):
            return None
        packed = torch.stack(rows if self.folder is None else [self._read(start) for start in rows])
        packed = packed.to(index.device)
        shape, kind = self.like.bottleneck.shape[1:], self.like.bottleneck.dtype
        end = shape.numel() * kind.itemsize
        bottleneck = from_bytes(packed[:, :end], kind).unflatten(1, shape)
        # Kernels, and with them the last bits, differ between memory formats.
        if self.like.bottleneck.is_contiguous(memory_format=torch.channels_last):
            bottleneck = bottleneck.contiguous(memory_format=torch.channels_last)
        code = Code(bottleneck, unpack(packed[:, end:-8], self.like), self.like.sizes)
        return code, from_bytes(packed[:, -8:], torch.int64)[:, 0]

    def _fits(self) -> None:
        needed = self.count * self.size * self.processes
        if self.folder is None:
            kind, where = "memory", "this machine has"
            there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            kind, where = "disk", f"{self.folder} has room for"
            there = shutil.disk_usage(self.folder).free
        if needed > there:
            raise ValueError(
                f"recipes.stage2.cache={kind}: {self.count} codes of {self.size / 1e6:.2f} MB in {self.processes} "
                f"process(es) need {needed / 1e9:.1f} GB; {where} {there / 1e9:.1f} GB; use cache=none"
            )
        if self.folder is not None:
            self.file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115  open as long as this object
            weakref.finalize(self, self.file.close)

    def _write(self, start: int, row: Tensor) -> None:
        # Not mapped into memory: on a full disk a signal would end the process without a message.
        rest = memoryview(row.numpy())
        while rest:
            try:
                done = os.pwrite(self.file.fileno(), rest, start)
            except OSError as error:
                raise OSError(f"recipes.stage2.cache=disk: {self.folder}: {error.strerror}") from None
            rest, start = rest[done:], start + done

    def _read(self, start: int) -> Tensor:
        return torch.frombuffer(bytearray(os.pread(self.file.fileno(), self.size, start)), dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor [B, ...] as bytes [B, N], in row-major order."""
    return tensor.flatten(1).contiguous().view(torch.uint8)


def from_bytes(packed: Tensor, kind: torch.dtype) -> Tensor:
    """Return the numbers [B, N] of these bytes, the inverse of `as_bytes`."""
    return packed.clone(memory_format=torch.contiguous_format).view(kind)  # a copy is aligned for this type


def pack(code: Code) -> Tensor:
    """Return the pooling indices of a code as bytes [B, N], four to a byte: each is a place in a 2 x 2 window."""
    if not code.indices:
        return torch.empty(len(code.bottleneck), 0, dtype=torch.uint8, device=code.bottleneck.device)
    choices = [
        (where // width % 2 * 2 + where % width % 2).to(torch.uint8).flatten(1)
        for where, (_, width) in zip(code.indices, code.sizes, strict=True)
    ]
    choices = torch.cat(choices, dim=1)
    choices = torch.nn.functional.pad(choices, (0, -choices.shape[1] % 4)).unflatten(1, (-1, 4))
    return choices[..., 0] | choices[..., 1] << 2 | choices[..., 2] << 4 | choices[..., 3] << 6


def unpack(packed: Tensor, like: Code) -> tuple[Tensor, ...]:
    """Return the pooling indices of these bytes, the inverse of `pack`, in a code shaped like `like`."""
    choices = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    indices, start = [], 0
    for where, (_, width) in zip(like.indices, like.sizes, strict=bool(like.indices)):
        shape = where.shape[1:]
        choice = choices[:, start : start + shape.numel()].unflatten(1, shape).long()
        start += shape.numel()
        rows = torch.arange(shape[1], device=packed.device)[:, None] * 2
        columns = torch.arange(shape[2], device=packed.device) * 2
        indices.append((rows + (choice >> 1)) * width + columns + (choice & 1))
    return tuple(indices)
