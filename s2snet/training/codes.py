"""Keep the frozen encoder's codes over the epochs: stage 2 without augmentation then encodes each image once."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor


class Codes:
    """The code and the label to learn of each training image, by the image's index.

    A code is a tensor [B, ...], or a (nested) tuple with such tensors in it; what else is in the tuple must be the same
    for all images. Codes are returned bit for bit and in the same memory format. An image takes its
    tensors' bytes, and eight for the label.

    Kept in memory, or with a `folder` in an unnamed file there that disappears with the process: an interrupted run
    leaves nothing stale, and a resumed one fills it again. Each of the `processes` keeps its own. ValueError if all
    `count` images will not fit.
    """

    def __init__(self, count: int, processes: int = 1, folder: Path | None = None):
        self.count, self.processes, self.folder = count, processes, folder
        self.rows: dict[int, Tensor | int] = {}  # the bytes, or their offset in the file
        self.file: BinaryIO | None = None
        self.size = 0  # bytes of a row
        self.empty: Any = None  # (code, labels) of no images: shapes, types, memory formats

    def put(self, index: Tensor, code: Any, labels: Tensor) -> None:
        """Keep the code and the label of each image that is not there yet."""
        kept = (code, labels)
        rows = torch.cat([as_bytes(tensor) for tensor in tensors(kept)], dim=1).cpu()
        if self.empty is None:
            self.empty = replaced(kept, (tensor[:0] for tensor in tensors(kept)))
            self.size = rows.shape[1]
            self._check_room()
        for image, row in zip(index.tolist(), rows, strict=True):
            if image in self.rows:
                continue
            if self.folder is None:
                self.rows[image] = row.clone()
            else:
                self._write(len(self.rows) * self.size, row)
                self.rows[image] = len(self.rows) * self.size

    def get(self, index: Tensor) -> tuple[Any, Tensor] | None:
        """Return the codes and labels of these images on the device of `index`, or None unless all are there."""
        rows = [self.rows.get(image) for image in index.tolist()]
        if any(row is None for row in rows):
            return None
        rows = torch.stack(rows if self.folder is None else [self._read(start) for start in rows]).to(index.device)
        sizes = [like.shape[1:].numel() * like.element_size() for like in tensors(self.empty)]
        return replaced(self.empty, map(from_bytes, rows.split(sizes, dim=1), tensors(self.empty)))

    def _check_room(self) -> None:
        needed = self.count * self.size * self.processes
        if self.folder is None:
            kind, place = "memory", "this machine has"
            room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            kind, place = "disk", f"{self.folder} has room for"
            room = shutil.disk_usage(self.folder).free
        if needed > room:
            raise ValueError(
                f"recipes.stage2.cache={kind}: {self.count} codes of {self.size / 1e6:.2f} MB in {self.processes} "
                f"process(es) need {needed / 1e9:.1f} GB; {place} {room / 1e9:.1f} GB; use cache=none"
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


def tensors(code: Any) -> list[Tensor]:
    """Return the tensors of a code, depth first."""
    if isinstance(code, Tensor):
        return [code]
    return [tensor for part in code for tensor in tensors(part)] if isinstance(code, tuple) else []


def replaced(code: Any, values: Iterator[Tensor]) -> Any:
    """Return a code of the same structure with the next of `values` for each of its tensors, depth first."""
    if isinstance(code, Tensor):
        return next(values)
    if not isinstance(code, tuple):
        return code
    parts = [replaced(part, values) for part in code]
    return type(code)(*parts) if hasattr(code, "_fields") else tuple(parts)


def as_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor [B, ...] as bytes [B, N], in row-major order."""
    return (tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]).contiguous().view(torch.uint8)


def from_bytes(packed: Tensor, like: Tensor) -> Tensor:
    """Return the tensor that `as_bytes` turned into these bytes, of the type, shape and memory format of `like`."""
    packed = packed.clone(memory_format=torch.contiguous_format)  # a slice's start may not be aligned to the type
    tensor = packed.view(like.dtype).view(-1, *like.shape[1:])
    # Kernels, and with them the last bits, differ between memory formats.
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor
