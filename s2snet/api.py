"""`s2snet.train_purifier` and `s2snet.evaluate`: for scripts and notebooks, on modules and data of one's own."""

import copy
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from s2snet import checks, models
from s2snet.config.choices import choose
from s2snet.config.recipe import check
from s2snet.config.runtime import Trainer
from s2snet.data import ImageFiles, Images, Shards, Streamed, split_validation
from s2snet.data.image_files import first_readable
from s2snet.evaluation.run import Job, run
from s2snet.evaluation.scores import read_table
from s2snet.models import Defended
from s2snet.models.check_input import check_input
from s2snet.report.audit_page import write_audit
from s2snet.report.page import write_report
from s2snet.store import paths, weights
from s2snet.store.defences import Defence

if TYPE_CHECKING:
    import pandas

# What a threat is when only its name is given; conf/threat/NAME.yaml says the same and explains.
_THREAT = {
    "routes": ["exact", "identity", "soft", "learned", "affine", "eot"],
    "temperature": 0.1,
    "fit_steps": 300,
    "smoothing": 0.05,
    "draws": 8,
    "sources": None,
}

# How each stage is trained when nothing is said; conf/recipe/stage1.yaml and stage2.yaml say the same and explain.
_RECIPE = {
    "epochs": 16,
    "batch_size": 64,
    "optimiser": "adam",
    "lr": 4e-3,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "poly",
    "clip": None,
    "accumulate": 1,
    "warmup": 0,
    "ema": None,
    "batch_norm": "train",
    "shift": 2,
    "flip": False,
    "scale": None,
    "early_stopping": None,
    "patience": 10,
    "save_every": None,
}
_RECIPES = {
    "1": _RECIPE,
    "2": _RECIPE | {"lr": 5e-3, "labels": "truth", "reconstruction_weight": 0.0, "cache": "none"},
}


def train_purifier(
    classifier: nn.Module | None,
    images: DataLoader | Dataset | tuple[Tensor, Tensor],
    autoencoder: str | nn.Module = "segnet_small",
    *,
    output: str | Path,
    options: Mapping[str, Any] | None = None,
    stage1: Mapping[str, Any] | None = None,
    stage2: Mapping[str, Any] | None = None,
    validation_every: int = 10,
    seed: int = 0,
    device: str = "auto",  # auto, cpu, gpu
    workers: int = 0,
    progress: bool = True,
) -> nn.Module:
    """An S2SNet tuned to a classifier, trained in both stages (arXiv 1803.07994); the classifier is left as it is.

    - `classifier`: any module from images [B, C, H, W] in [0, 1] to logits, in eval mode; normalisation belongs inside;
      None ends after stage 1 and gives its autoencoder;
    - `images`: training images with their labels, as for `evaluate`; every `validation_every`-th validates;
    - `autoencoder`: a name in s2snet.models.AUTOENCODERS, built with `options`; channels, mean and std follow from the
      images where they are not given; or an autoencoder that stage 1 has trained, to share it between classifiers: it
      is left as it is;
    - `stage1`, `stage2`: what differs from the default recipes (conf/recipe/stage1.yaml, stage2.yaml);
    - `output`: a folder for both weights files, curves and pictures. The same call goes on there after an interruption,
      and gives back what it finds where everything was trained.

    In eval mode, with its `.header`. ValueError, in one line, for what cannot be trained or lies in the way.
    """
    from s2snet.training import checkpoints
    from s2snet.training.autoencoder import TrainAutoencoder
    from s2snet.training.finetune import FinetuneDecoder
    from s2snet.training.loaders import derived_seed
    from s2snet.training.loop import Job as Training
    from s2snet.training.loop import fit, speaker
    from s2snet.training.stage import Stage

    if classifier is not None:
        _in_eval_mode("the classifier", classifier)
    shared = None if isinstance(autoencoder, str) else autoencoder
    choose("autoencoder", autoencoder if shared is None else _kind(shared), models.AUTOENCODERS)
    if shared is not None and (classifier is None or options or stage1):
        raise ValueError("a trained autoencoder has its options and its stage 1 behind it: give a classifier alone")
    recipes = {"1": _recipe("1", stage1), "2": _recipe("2", stage2)}
    splits = split_validation(_images(images, None), validation_every)
    channels, size = _goes_with(classifier, splits.train, recipes["2"])
    facts = {"channels": channels, "mean": splits.train.mean or (0.5,), "std": splits.train.std or (0.5,)}
    trained_on = splits.train.fingerprint()
    say = speaker()

    def trained(name: str, build: Callable[[dict[str, Any]], Stage], **more: Any) -> nn.Module:
        recipe, folder = recipes[name], Path(output) / paths.KINDS[name]
        path = folder / paths.WEIGHTS
        made_of = {"recipe": recipe, "seed": seed, **more}
        if path.is_file():
            header = weights.read_header(path)
            found = {key: header.get(key) for key in made_of}
            if found == made_of and header["data"]["train_fingerprint"] == trained_on:
                return weights.load(path)
            raise ValueError(f"{folder} holds a run of another recipe, seed, network or data; give another output")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, list(paths.KINDS).index(name)))
            module = build(recipe)
        last = folder / checkpoints.CHECKPOINT
        resume = checkpoints.to_resume(folder, "last", recipe, name, overwrite=False) if last.is_file() else None
        about = {"name": type(splits.train).__name__, "channels": channels, "size": size}
        job = Training(
            name,
            module,
            splits,
            folder,
            about,
            Trainer(accelerator=device, workers=workers, progress=progress),
            facts=more,
            command="s2snet.train_purifier(...)",
            resume=resume,
        )
        return weights.load(fit(job, say))

    if shared is None:
        begun = models.build(autoencoder, **{**facts, **(options or {})}).config
        plain = trained("1", lambda recipe: TrainAutoencoder(models.build(**begun), recipe, seed), begun=begun)
    else:
        check_input(shared, "the autoencoder", channels, size)
        plain = copy.deepcopy(shared).requires_grad_(True)  # it may come frozen; stage 2 freezes what it must
    if classifier is None:
        return plain
    return trained(
        "2",
        lambda recipe: FinetuneDecoder(plain, copy.deepcopy(classifier), recipe, seed),
        autoencoder=weights.fingerprint(plain),
        classifier=weights.fingerprint(classifier),
    )


def _kind(module: nn.Module) -> str:
    return getattr(module, "config", {}).get("name") or type(module).__name__


def _recipe(stage: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    for key in given or {}:
        choose(f"stage{stage}'s recipe", key, _RECIPES[stage])
    recipe = {**_RECIPES[stage], **(given or {})}
    check(stage, recipe)
    return recipe


def _goes_with(
    classifier: nn.Module | None, images: Images | ImageFiles | Streamed, recipe: dict[str, Any]
) -> list[int]:
    """[channels, width] of the images; ValueError where the classifier cannot learn from their labels."""
    first = _first(images)
    if classifier is None:
        return [first.shape[0], first.shape[-1]]
    device = next(classifier.parameters(), first).device
    with torch.no_grad():
        count = classifier(first[None].to(device)).shape[-1]
    if len(images.classes) > count:
        raise ValueError(f"the classifier tells {count} classes apart, and the images have {len(images.classes)}")
    labels = getattr(images, "labels", torch.empty(0))
    if recipe["labels"] == "truth" and (labels < 0).any():
        raise ValueError("there are images without labels; stage2={'labels': 'classifier'} trains without them")
    return [first.shape[0], first.shape[-1]]


def evaluate(
    defended: nn.Module | Mapping[str, nn.Module],
    loader: DataLoader | Dataset | tuple[Tensor, Tensor],
    attacks: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("fgsm", "apgd", "apgd_margin"),
    threats: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("gray_box", "white_box"),
    *,
    budgets: Mapping[str, Sequence[float]] | None = None,
    train: DataLoader | Dataset | tuple[Tensor, Tensor] | None = None,
    adversarial: Sequence[str | Path] = (),
    images: int | None = None,
    seeds: Sequence[int] = (0,),
    chunk: int = 128,
    keep: str | None = None,
    fast: bool = True,
    audit: str = "quick",  # off, quick, full
    device: str = "auto",  # auto, cpu, gpu
    classes: Sequence[str] | None = None,
    output: str | Path | None = None,
    progress: bool = True,
) -> "pandas.DataFrame":
    """Attacks classifiers and returns one row per image, cell and judge (evaluation/schema.py, ROW_SCHEMA).

    - `defended`: a `Defended`, any module from images [B, C, H, W] in [0, 1] to logits, or several by name, in eval
      mode. They are evaluated as they are and left so. Normalisation belongs inside;
    - `loader`: the test images, as a DataLoader over a map-style data set, that data set itself, or (images,
      labels). They are taken in the data set's order, a chunk at a time; nothing else of the loader is used;
    - `attacks`: names as in conf/attack, or {label: options} with the attack's `name` where the label is another;
    - `threats`: names, or {name: options} as in conf/threat/NAME.yaml;
    - `budgets`: {norm: radii in [0, 1] pixel units}, by default Linf 8/255;
    - `train`: training images, needed by the routes `learned` and `affine`, which are left out without them, and by
      the threat `universal`, with their labels;
    - `adversarial`: files of adversarial images from elsewhere (evaluation/foreign.py);
    - `output`: a folder for ledger, rows, table and report, where the same call goes on after a crash; None keeps
      nothing.

    `.attrs["table"]` of the result holds the lines of the table (evaluation/scores.py), worst cases included, each with
    the audit's verdict on its defence; `.attrs["audit"]` the findings (s2snet.checks.Finding), the worst first.
    ValueError, in one line, for what cannot be evaluated. Cost: see `Job`; images that leave early cost less.
    """
    modules = dict(defended) if isinstance(defended, Mapping) else {"defended": defended}
    test = _images(loader, classes)
    job_attacks = {label: {"name": label, **options} for label, options in _named(attacks).items()}
    job_threats = {label: {"name": label, **_THREAT, **options} for label, options in _named(threats).items()}
    with tempfile.TemporaryDirectory() as temporary:
        job = Job(
            name=type(getattr(test, "source", test)).__name__,
            images=test,
            train=None if train is None else _images(train, classes),
            defences=[_defence(name, module) for name, module in modules.items()],
            threats=job_threats,
            attacks=job_attacks,
            budgets={norm: list(radii) for norm, radii in (budgets or {"linf": [8 / 255]}).items()},
            adversarial=[str(path) for path in adversarial],
            output=Path(output or temporary),
            count=images,
            seeds=list(seeds),
            chunk=chunk,
            keep=keep if output is not None else "none",
            samples=12 if output is not None else 0,
            fast=fast,
            audit=audit,
            trainer=Trainer(accelerator=device, progress=progress),
            command="s2snet.evaluate(...)",
        )
        folder = run(job, say=lambda text: print(text, file=sys.stderr))
        found = checks.write(folder)
        rows = pq.read_table(folder / "rows.parquet").to_pandas()
        rows.attrs["table"] = read_table(folder / "table.csv")
        rows.attrs["audit"] = found
        if output is not None:
            write_report(folder)
            write_audit(folder)
    return rows


def _named(given: Iterable[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    if isinstance(given, str):
        return {given: {}}
    if isinstance(given, Mapping):
        return {label: dict(options) for label, options in given.items()}
    return {name: {} for name in given}


def _in_eval_mode(name: str, module: nn.Module) -> None:
    if module.training:
        raise ValueError(f"{name} is in training mode, where its answers depend on the batch; call .eval() first")


def _defence(name: str, module: nn.Module) -> Defence:
    _in_eval_mode(name, module)
    whole = module if isinstance(module, Defended) else Defended(None, module)
    about = type(whole.classifier).__name__
    if whole.has_purifier:
        about = f"{type(whole.purifier).__name__} before {about}"
    return Defence(name, name, whole, [], weights.fingerprint(whole), about)


def _images(
    given: DataLoader | Dataset | tuple[Tensor, Tensor], classes: Sequence[str] | None
) -> Images | ImageFiles | Streamed:
    """The images as the loops read them; ValueError for what cannot be read so, by the first of them."""
    if isinstance(given, DataLoader):
        given = given.dataset
    if isinstance(given, IterableDataset | Shards):
        raise ValueError("a stream has no order to come back to after a crash; give a map-style data set")
    if isinstance(given, tuple):
        images, labels = given
        names = classes or [str(number) for number in range(int(labels.max()) + 1 if len(labels) else 0)]
        given = Images(images, labels, torch.arange(len(images)), list(names))
    if not len(given):
        raise ValueError("there are no images")
    if not isinstance(given, Images | ImageFiles | Streamed):
        if not isinstance(given[0], tuple | list) or len(given[0]) < 2:
            raise ValueError(
                f"an item of {type(given).__name__} is {type(given[0]).__name__}; wanted is (image, label)"
            )
        given = Streamed(given, list(classes) if classes else None)
    _first(given)
    return given


def _first(images: Images | ImageFiles | Streamed) -> Tensor:
    """The first image that is whole; ValueError where it is not what all have to be."""
    image = first_readable(images.__getitem__, 0, len(images))[0]
    if not isinstance(image, Tensor):
        is_one = type(image).__name__
    elif image.dtype != torch.float32 or image.dim() != 3:
        is_one = f"{image.dtype} {list(image.shape)}"
    elif not (image.min() >= 0 and image.max() <= 1):
        is_one = f"from {image.min():.3g} to {image.max():.3g}"
    else:
        return image
    raise ValueError(f"images are float32 [C, H, W] in [0, 1], normalised inside the networks; the first is {is_one}")
