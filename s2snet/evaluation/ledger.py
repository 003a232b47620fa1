"""Keep what was crafted and judged on disk, one file per chunk, each complete or absent.

    ledger/crafted/KEY/cell.json            the key's preimage
    ledger/crafted/KEY/00000.safetensors    adversarial images of chunk 0, with indices and passes per image
    ledger/crafted/KEY/00000.sample.safetensors   only those that the report shows, if not all are kept
    ledger/judged/KEY/JUDGE/00000.parquet   rows of chunk 0 before that judge (MEASURED_SCHEMA)
    ledger/fits/KEY.safetensors             a surrogate that was fitted to a purifier, or a universal perturbation
    ledger/failed/KEY.00000.json            why chunk 0 of that cell failed; the next run tries again

Every rank writes its own chunks; a lock held by the first rank keeps a second run out. A file is written under a
temporary name, flushed, synced and renamed, so a file with its final name is complete. It also holds a checksum: if it
does not match, the file is reported, moved aside and made again.
"""

import hashlib
import json
import os
from pathlib import Path

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from s2snet.atomic_io import write_whole
from s2snet.evaluation.schema import MEASURED_SCHEMA


class Ledger:
    """The ledger of one result folder, held by one run at a time; `hold=False` for the run's further ranks."""

    def __init__(self, folder: Path, hold: bool = True):
        self.folder = folder
        self.damaged: list[str] = []  # files that failed their checksum and were moved aside
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / "lock")
        if not hold:
            return
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"{folder} is in use by another run; wait for it, or use another output=FOLDER") from None

    def close(self) -> None:
        self._lock.release()

    def describe(self, key: str, preimage: dict) -> None:
        """Write the readable preimage of a crafted key next to its chunks."""
        path = self.folder / "crafted" / key / "cell.json"
        if not path.is_file():
            write_whole(path, json.dumps(preimage, indent=1, sort_keys=True).encode())

    def crafted(self, key: str, chunk: int, sample: bool = False) -> dict[str, Tensor] | None:
        """Return the tensors of a crafted chunk (adversarial, image, ...) or of its sample, or None."""
        return self._tensors(self._crafted_path(key, chunk, sample))

    def keep_crafted(self, key: str, chunk: int, tensors: dict[str, Tensor], sample: bool = False) -> None:
        self._keep_tensors(self._crafted_path(key, chunk, sample), tensors)

    def fit(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of a surrogate or a perturbation, or None if it is not fitted yet."""
        return self._tensors(self.folder / "fits" / f"{key}.safetensors")

    def keep_fit(self, key: str, tensors: dict[str, Tensor]) -> None:
        self._keep_tensors(self.folder / "fits" / f"{key}.safetensors", tensors)

    def keep_failure(self, key: str, chunk: int, reason: str) -> None:
        write_whole(self.folder / "failed" / f"{key}.{chunk:05d}.json", json.dumps(reason).encode())

    def failures(self) -> dict[str, dict[int, str]]:
        """Return {key: {chunk: reason}} of this run, over all ranks."""
        reasons: dict[str, dict[int, str]] = {}
        for path in sorted((self.folder / "failed").glob("*.json")):
            key, chunk, _ = path.name.split(".")
            reasons.setdefault(key, {})[int(chunk)] = json.loads(path.read_text())
        return reasons

    def forget_failures(self) -> None:
        for path in (self.folder / "failed").glob("*.json"):
            path.unlink()

    def _crafted_path(self, key: str, chunk: int, sample: bool) -> Path:
        return self.folder / "crafted" / key / f"{chunk:05d}{'.sample' if sample else ''}.safetensors"

    def _tensors(self, path: Path) -> dict[str, Tensor] | None:
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                stated = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError):
            return self._set_aside(path)
        return tensors if stated == _checksum(tensors) else self._set_aside(path)

    def _keep_tensors(self, path: Path, tensors: dict[str, Tensor]) -> None:
        write_whole(path, save(tensors, metadata={"sha256": _checksum(tensors)}))

    def judged(self, key: str, judge: str, chunk: int) -> pa.Table | None:
        """Return the rows of a judged chunk, or None."""
        path = self._judged_path(key, judge, chunk)
        if not path.is_file():
            return None
        try:
            rows = pq.read_table(path, page_checksum_verification=True, partitioning=None)
            stated = (rows.schema.metadata or {}).get(b"sha256", b"").decode()
            rows = rows.replace_schema_metadata(None).cast(MEASURED_SCHEMA)
        except (pa.ArrowException, OSError, ValueError):
            return self._set_aside(path)
        return rows if stated == _checksum_of_rows(rows) else self._set_aside(path)

    def keep_judged(self, key: str, judge: str, chunk: int, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        stated = rows.replace_schema_metadata({"sha256": _checksum_of_rows(rows)})
        pq.write_table(stated, sink, write_page_checksum=True)
        write_whole(self._judged_path(key, judge, chunk), sink.getvalue().to_pybytes())

    def _judged_path(self, key: str, judge: str, chunk: int) -> Path:
        return self.folder / "judged" / key / judge[:32] / f"{chunk:05d}.parquet"

    def _set_aside(self, path: Path) -> None:
        os.replace(path, path.with_name(path.name + ".damaged"))
        self.damaged.append(str(path))


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checksum_of_rows(rows: pa.Table) -> str:
    """Return a checksum of the values: parquet's own checksums leave out its footer."""
    digest = hashlib.sha256()
    for name in rows.column_names:
        digest.update(name.encode())
        digest.update(rows[name].is_valid().to_numpy().tobytes())
        digest.update(rows[name].drop_null().to_numpy().tobytes())
    return digest.hexdigest()
