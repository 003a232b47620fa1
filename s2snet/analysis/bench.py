"""The bench a study works on: images, defences, parts that survive an interruption, tables, claims.

A study computes whatever takes long through the bench: `rows`, `tensors`, `trained` and `purifier` compute a part once
and keep it under OUTPUT/analysis/STUDY/parts. The same command then resumes after an interruption, and a changed option
recomputes only the parts that depend on it.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from s2snet import api
from s2snet.analysis.claim import Claim
from s2snet.atomic_io import make_whole, write_whole
from s2snet.config.networks import Classifier
from s2snet.data import Splits
from s2snet.data.image_files import first_readable
from s2snet.models import Defended, freeze
from s2snet.store import weights
from s2snet.store.defences import Defence


class Sample(NamedTuple):
    """Images [n, C, H, W] in [0, 1], labels int64 [n], and each image's index in its data set."""

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass
class Bench:
    """One run of a study: one data set, one folder, one seed."""

    study: str
    version: int  # of the study; part of every key
    data: str  # name of the data set
    splits: Splits
    folder: Path  # OUTPUT/analysis/STUDY
    find_defences: Callable[[], list[Defence]]  # loads the chosen defences; errors are one line for the user
    # loads a classifier with its weights; FileNotFoundError if it was not trained
    find_classifier: Callable[[Classifier], nn.Module] | None = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: bool = False
    log: Callable[[str], None] = print
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    grids: dict[str, dict[str, Any]] = field(default_factory=dict)
    _pictures: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def defences(self) -> dict[str, Defence]:
        """The defences by name, frozen, on the device."""
        defences = {defence.name: defence for defence in self.find_defences()}
        for defence in defences.values():
            freeze(defence.module).to(self.device)
        return defences

    def defended(self, name: str) -> Defended:
        """Return the defended module of that name. ValueError, in one line, if it is not among the defences."""
        if name not in self.defences:
            loaded = ", ".join(self.defences)
            raise ValueError(f"study={self.study} needs the defence {name}; got {loaded} (add defence=[...,{name}])")
        return self.defences[name].module

    def images(self, count: int | None = None, split: str = "test", spread: bool = False) -> Sample:
        """Return the first `count` images of a split on the device, or all of them if there are fewer.

        `spread` takes them evenly from the whole split, for data that are ordered by class.
        """
        source = getattr(self.splits, split)
        total = len(source) if count is None else min(count, len(source))
        places = evenly(total, len(source)) if spread else range(total)
        items = [first_readable(source.__getitem__, place, len(source) if spread else total)[:3] for place in places]
        if not items:
            raise ValueError(f"study={self.study}: data={self.data} has no {split} images")
        images, labels, index = zip(*items, strict=True)
        return Sample(torch.stack(images).to(self.device), torch.tensor(labels).to(self.device), torch.tensor(index))

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.splits.test.classes]

    def rows(self, table: str, make: Callable[[], Iterable[Mapping[str, Any]]], **facts: Any) -> list[dict[str, Any]]:
        """Return the rows of a part, computed by `make` or read from disk, and append them to TABLE.csv.

        `facts` are everything that the rows depend on: numbers, texts, lists, tensors, modules. They identify the part.
        The values of a row are numbers, texts, booleans or None.
        """
        path = self._part(table, facts, "json")
        rows = _read_rows(path, self.log)
        if rows is None:
            rows = [{key: _plain(value) for key, value in row.items()} for row in make()]
            write_whole(path, json.dumps(rows).encode())
        self.tables.setdefault(table, []).extend(rows)
        return rows

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]], **facts: Any) -> dict[str, Tensor]:
        """Return the tensors of a part, computed by `make` or read from disk, on the device. `facts` as in `rows`."""
        path = self._part(name, facts, "safetensors")
        try:
            return load_file(path, device=str(self.device))
        except FileNotFoundError:
            pass
        except (SafetensorError, OSError) as error:
            self.log(f"{path} is damaged ({error}) and is computed again")
        computed = {key: tensor.detach().cpu().contiguous() for key, tensor in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        make_whole(path, lambda temporary: save_file(computed, temporary))
        return {key: tensor.to(self.device) for key, tensor in computed.items()}

    def trained(self, name: str, build: Callable[[], nn.Module], train: Callable[[nn.Module], object], **facts: Any):
        """Return the frozen module of `build`, trained in place by `train`, or with the weights of an earlier run.

        It is built and trained with the bench's seed. `facts` as in `rows`: the recipe and the images.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = build().to(self.device)

        def make() -> dict[str, Tensor]:
            self.log(f"{self.study}: training {name}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                train(module)
            return module.state_dict()

        state = self.tensors(name, make, seed=self.seed, architecture=str(module), **facts)
        module.load_state_dict(state)
        return freeze(module)

    def purifier(
        self,
        name: str,
        classifier: nn.Module | None,
        autoencoder: str | nn.Module = "segnet_small",
        count: int | None = None,
        spread: bool = False,
        **options: Any,
    ) -> nn.Module:
        """Return the frozen purifier that `s2snet.train_purifier` trains with these options; it resumes by itself.

        It is an S2SNet for this classifier. For None it is the autoencoder after stage 1, which several S2SNets can
        share as `autoencoder`. Trained on the first `count` training images, on as many evenly `spread`, or on all.
        """
        images = self.splits.train
        if count is not None and count < len(images):
            images = images.only(evenly(count, len(images)) if spread else range(count))
        facts = {"classifier": classifier, "autoencoder": autoencoder, "seed": self.seed, **options}
        key = self._key(name, {**facts, "images": images.fingerprint()})
        folder = self.folder / "parts" / f"{name}-{key[:12]}"
        self.log(f"{self.study}: {name}, in {folder}")
        runtime = {"device": "gpu" if self.device.type == "cuda" else "cpu", "progress": self.progress}
        options = runtime | options
        purifier = api.train_purifier(classifier, images, autoencoder, output=folder, seed=self.seed, **options)
        return freeze(purifier).to(self.device)

    def save_purifier(self, name: str, module: nn.Module, **facts: Any) -> Path:
        """Save a purifier for `python evaluate.py defence=[NAME]` as OUTPUT/analysis/STUDY/NAME.safetensors."""
        path = self.folder / f"{name}.safetensors"
        shape = self.splits.test[0][0].shape
        data = {"name": self.data, "input": {"channels": shape[0], "size": shape[-1]}}
        weights.save(module, path, study=self.study, data=data, input=data["input"], seed=self.seed, **facts)
        return path

    def add_grid(
        self,
        name: str,
        images: Tensor,
        rows: list[str],
        columns: list[str],
        title: str,
        caption: str = "",
        signed: tuple[str, ...] = (),
    ) -> None:
        """Add pictures to the page: images [len(rows), len(columns), C, H, W] in [0, 1].

        The pictures in a row or column named in `signed` are centred at 0, and each has its own colour scale.
        """
        if images.shape[:2] != (len(rows), len(columns)):
            raise ValueError(f"grid {name}: {tuple(images.shape)} for {len(rows)} rows and {len(columns)} columns")
        self._pictures[name] = images.detach().float().cpu().contiguous()
        self.grids[name] = {
            "title": title,
            "caption": caption,
            "rows": rows,
            "columns": columns,
            "signed": list(signed),
        }

    def track(self, items: Iterable, what: str) -> Iterable:
        """Return the items, with a progress bar if the settings ask for one."""
        return track(list(items), description=f"{self.study}: {what}", disable=not self.progress, transient=True)

    def finish(self, claims: list[Claim], about: dict[str, Any]) -> None:
        """Write the tables, pictures, claims and `about` into the folder; delete tables of earlier runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.csv"):
            if old.stem not in self.tables:
                old.unlink()
        for table, rows in self.tables.items():
            write_whole(self.folder / f"{table}.csv", _csv(rows).encode())
        if self._pictures:
            write_whole(self.folder / "grids.safetensors", save(self._pictures))
        facts = {"study": self.study, "version": self.version, "data": self.data, "seed": self.seed, **about}
        facts |= {"grids": self.grids, "claims": [asdict(claim) for claim in claims], "versions": weights.versions()}
        write_whole(self.folder / "study.json", (json.dumps(facts, indent=1) + "\n").encode())

    def _part(self, name: str, facts: Mapping[str, Any], suffix: str) -> Path:
        return self.folder / "parts" / f"{name}-{self._key(name, facts)[:16]}.{suffix}"

    def _key(self, name: str, facts: Mapping[str, Any]) -> str:
        known = {"study": self.study, "version": self.version, "name": name, "facts": _canonical(facts)}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def evenly(count: int, total: int) -> list[int]:
    """Return `count` positions among `total`, from the first on, equally spaced up to rounding."""
    return [place * total // count for place in range(count)]


def _canonical(value: Any) -> Any:
    """Return a fact as JSON: a module as its fingerprint, a tensor as a hash of its bytes."""
    if isinstance(value, nn.Module):
        return weights.fingerprint(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a fact of type {type(value).__name__}: expected a number, text, list, mapping, tensor, module or None"
    )


def _plain(value: Any) -> Any:
    """Return a value of a row as a JSON value."""
    value = value.item() if isinstance(value, Tensor) or hasattr(value, "item") else value
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"a value of type {type(value).__name__} in a row: expected a number, text, boolean or None")
    return value


def _read_rows(path: Path, log: Callable[[str], None]) -> list[dict[str, Any]] | None:
    """Return the rows of a file, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        log(f"{path} is damaged ({error}) and is computed again")
        return None


def _csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows as CSV with the union of their columns, floats with six significant digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return file.getvalue()
