"""What a study works on and with: images, defences, parts that survive a kill, tables, claims.

A study is a function `study(bench, **options) -> list[Claim]`. Whatever takes long it asks the bench to make:
`rows`, `tensors`, `trained` and `purifier` make a part once and keep it under OUTPUT/analysis/STUDY/parts, so that the
same command goes on after an interruption, and a changed option makes anew what depends on it and nothing else.
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
from s2snet.atomic_io import make_whole, write_whole
from s2snet.data import Splits
from s2snet.data.image_files import first_readable
from s2snet.models import Defended, freeze
from s2snet.store import weights
from s2snet.store.defences import Defence

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"  # what a claim may come to


@dataclass(frozen=True)
class Claim:
    """A sentence that can be wrong, and what was found. `found` gives the numbers with n and their interval."""

    name: str
    says: str  # the claim itself
    source: str  # a paper with its section, or "ours": then it is a definition or a control of this project
    found: str
    verdict: str  # holds, fails, undecided
    because: str = ""  # where it differs from the paper: what is known to differ in the setting

    def __post_init__(self) -> None:
        if self.verdict not in (HOLDS, FAILS, UNDECIDED):
            raise ValueError(f"claim {self.name}: verdict {self.verdict!r}")


class Sample(NamedTuple):
    """Images [n, C, H, W] in [0, 1], labels int64 [n], and each image's index in its data set."""

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass
class Bench:
    """A study's place: one data set, one folder, one seed."""

    study: str
    version: int  # of the study; part of every key
    data: str  # the data set's name
    splits: Splits
    folder: Path  # OUTPUT/analysis/STUDY
    find: Callable[[], list[Defence]]  # the defences that the settings name; raises what a user can mend
    # a classifier by its settings (conf/classifier), `weights` among them; FileNotFoundError where nobody trained it
    network: Callable[[Mapping[str, Any]], nn.Module] | None = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: bool = False
    say: Callable[[str], None] = print
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    grids: dict[str, dict[str, Any]] = field(default_factory=dict)
    _pictures: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def defences(self) -> dict[str, Defence]:
        """The defences by name, frozen, on the device."""
        found = {defence.name: defence for defence in self.find()}
        for defence in found.values():
            freeze(defence.module).to(self.device)
        return found

    def need(self, name: str) -> Defended:
        """The defended module of that name. ValueError, in one line, where it was not found."""
        if name not in self.defences:
            had = ", ".join(self.defences)
            raise ValueError(f"study={self.study} needs the defence {name}; here are {had} (defence=[...,{name}])")
        return self.defences[name].module

    def images(self, count: int | None = None, split: str = "test", spread: bool = False) -> Sample:
        """The first `count` images of a split (all where there are fewer), on the device.

        With `spread` they come evenly from all of it, for data that are ordered by class.
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
        """The rows of a part, made or read again, and put at the end of `table`, which becomes TABLE.csv.

        `facts` are whatever the rows depend on: numbers, texts, lists, tensors, modules. A row's values are numbers,
        texts, booleans or None.
        """
        path = self._part(table, facts, "json")
        found = _read_rows(path, self.say)
        if found is None:
            found = [{key: _plain(value) for key, value in row.items()} for row in make()]
            write_whole(path, json.dumps(found).encode())
        self.tables.setdefault(table, []).extend(found)
        return found

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]], **facts: Any) -> dict[str, Tensor]:
        """The tensors of a part, made or read again, on the device. `facts` as in `rows`."""
        path = self._part(name, facts, "safetensors")
        try:
            return load_file(path, device=str(self.device))
        except FileNotFoundError:
            pass
        except (SafetensorError, OSError) as error:
            self.say(f"{path} is damaged ({error}) and is made again")
        made = {key: tensor.detach().cpu().contiguous() for key, tensor in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        make_whole(path, lambda beside: save_file(made, beside))
        return {key: tensor.to(self.device) for key, tensor in made.items()}

    def trained(self, name: str, build: Callable[[], nn.Module], train: Callable[[nn.Module], object], **facts: Any):
        """The module of `build`, trained in place by `train` or filled with what an earlier run trained; frozen.

        Built with the bench's seed. `facts` as in `rows`: architecture, recipe, images.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = build().to(self.device)

        def make() -> dict[str, Tensor]:
            self.say(f"{self.study}: training {name}")
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
        """What `s2snet.train_purifier` makes with these options, frozen; it goes on by itself where it stopped.

        An S2SNet for this classifier, or with None the autoencoder after stage 1, which may be the `autoencoder` of
        several. Trained on the first `count` training images, or as many evenly `spread`, or all.
        """
        images = self.splits.train
        if count is not None and count < len(images):
            images = images.only(evenly(count, len(images)) if spread else range(count))
        facts = {"classifier": classifier, "autoencoder": autoencoder, "seed": self.seed, **options}
        key = self._key(name, {**facts, "images": images.fingerprint()})
        folder = self.folder / "parts" / f"{name}-{key[:12]}"
        self.say(f"{self.study}: {name}, trained in {folder}, or found there")
        on = {"device": "gpu" if self.device.type == "cuda" else "cpu", "progress": self.progress}
        made = api.train_purifier(classifier, images, autoencoder, output=folder, seed=self.seed, **(on | options))
        return freeze(made).to(self.device)

    def leave(self, name: str, module: nn.Module, **facts: Any) -> Path:
        """Saves a purifier for `python evaluate.py defence=[NAME]` as OUTPUT/analysis/STUDY/NAME.safetensors."""
        path = self.folder / f"{name}.safetensors"
        shape = self.splits.test[0][0].shape
        about = {"name": self.data, "input": {"channels": shape[0], "size": shape[-1]}}
        weights.save(module, path, study=self.study, data=about, input=about["input"], seed=self.seed, **facts)
        return path

    def grid(
        self,
        name: str,
        images: Tensor,
        rows: list[str],
        columns: list[str],
        title: str,
        caption: str = "",
        signed: tuple[str, ...] = (),
    ) -> None:
        """Pictures for the page: images [len(rows), len(columns), C, H, W] in [0, 1].

        Those in a row or column named in `signed` are around 0, and each is shown on a scale of its own.
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

    def each(self, items: Iterable, what: str) -> Iterable:
        """The items, behind a progress bar where one is wanted."""
        return track(list(items), description=f"{self.study}: {what}", disable=not self.progress, transient=True)

    def finish(self, claims: list[Claim], about: dict[str, Any]) -> None:
        """Writes the tables, pictures, claims and `about` into the folder. Old tables go."""
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
    """`count` places of `total`, from the first on and equally far apart, up to rounding."""
    return [place * total // count for place in range(count)]


def _canonical(value: Any) -> Any:
    """A fact as JSON: modules by their fingerprint, tensors by their bytes."""
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
    raise TypeError(f"a fact of type {type(value).__name__} has no canonical form")


def _plain(value: Any) -> Any:
    """A row's value as JSON knows it."""
    value = value.item() if isinstance(value, Tensor) or hasattr(value, "item") else value
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"a row's value of type {type(value).__name__}: numbers, texts, booleans and None are allowed")
    return value


def _read_rows(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        say(f"{path} is damaged ({error}) and is made again")
        return None


def _csv(rows: list[dict[str, Any]]) -> str:
    """The rows under the union of their columns, floats with six digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return file.getvalue()
