"""Define `s2snet.train_purifier` and `s2snet.evaluate`, for scripts and notebooks with their own modules and data."""

import dataclasses
import inspect
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from s2snet import models
from s2snet.audit import checks
from s2snet.audit.probes.measure import measure
from s2snet.config.choices import check_key, choose
from s2snet.config.evaluation import evaluation_of
from s2snet.config.networks import Data
from s2snet.config.option import check
from s2snet.config.recipe import Recipe, Stage1Recipe, Stage2Recipe
from s2snet.config.runtime import Trainer
from s2snet.data import ImageFiles, Images, Shards, Streamed, split_validation
from s2snet.data.image_files import first_readable
from s2snet.evaluation.job import Job
from s2snet.evaluation.run import run
from s2snet.evaluation.scores import read_table
from s2snet.models import Defended
from s2snet.models.check_input import check_input
from s2snet.report.audit_page import write_audit
from s2snet.report.page import write_report
from s2snet.store import weights
from s2snet.store.defences import Defence

if TYPE_CHECKING:
    import pandas


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
    """Train a purifier in front of a classifier, in both stages (arXiv 1803.07994), and return it in eval mode.

    - `classifier`: any module from images [B, C, H, W] in [0, 1] to logits, in eval mode, with its normalisation
      inside. It is left as it is. None ends after stage 1 and returns the autoencoder;
    - `images`: training images with their labels, as for `evaluate`; every `validation_every`-th validates;
    - `autoencoder`: a name in s2snet.models.AUTOENCODERS, built with `options`; channels, mean and std follow from the
      images unless given, if it has these options. Or an autoencoder that stage 1 has trained, which several
      classifiers can share; it is left as it is;
    - `stage1`, `stage2`: changes to the default recipes, such as {"epochs": 3} (s2snet/config/recipe.py);
    - `output`: the folder of both weights files, curves and pictures. The same call resumes an interrupted training
      there, and returns its purifier if it is finished.

    The module's `.header` is that of its weights file. ValueError, in one line, for what cannot be trained, and if the
    folder holds another training.
    """
    from s2snet.training.two_stages import TwoStages

    if classifier is not None:
        _in_eval_mode("the classifier", classifier)
    shared = None if isinstance(autoencoder, str) else autoencoder
    choose("autoencoder", autoencoder if shared is None else _kind(shared), models.AUTOENCODERS)
    if shared is not None and (classifier is None or options or stage1):
        raise ValueError("a trained autoencoder takes neither options nor stage1, and needs a classifier")
    recipe1, recipe2 = _recipe(Stage1Recipe, "stage1", stage1), _recipe(Stage2Recipe, "stage2", stage2)
    splits = split_validation(_images(images, None), validation_every)
    channels, size = _check_images(splits.train, classifier, recipe2)
    stages = TwoStages(
        output=Path(output),
        splits=splits,
        data=Data(type(splits.train).__name__, {"channels": channels, "size": size}),
        trainer=check(Trainer(accelerator=device, workers=workers, progress=progress), "trainer"),
        seed=seed,
    )
    if shared is not None:
        check_input(shared, "the autoencoder", channels, size)
        return stages.finetuned(shared, classifier, recipe2)
    facts = {"channels": channels, "mean": splits.train.mean or (0.5,), "std": splits.train.std or (0.5,)}
    accepted = inspect.signature(models.AUTOENCODERS[autoencoder]).parameters
    facts = {name: value for name, value in facts.items() if name in accepted}
    built = models.build(autoencoder, **{**facts, **(options or {})})
    plain = stages.autoencoder(built.config, recipe1)
    return plain if classifier is None else stages.finetuned(plain, classifier, recipe2)


def _kind(module: nn.Module) -> str:
    return getattr(module, "config", {}).get("name") or type(module).__name__


def _recipe(kind: type[Recipe], name: str, given: Mapping[str, Any] | None) -> Recipe:
    """Return the default recipe with the given changes, checked."""
    for key in given or {}:
        check_key(f"{name}.", key, [item.name for item in dataclasses.fields(kind)])
    return check(kind(**(given or {})), name)


def _check_images(
    images: Images | ImageFiles | Streamed, classifier: nn.Module | None, recipe: Stage2Recipe
) -> list[int]:
    """Return [channels, width] of the images; ValueError if the classifier cannot learn from their labels."""
    first = _first(images)
    if classifier is None:
        return [first.shape[0], first.shape[-1]]
    device = next(classifier.parameters(), first).device
    with torch.no_grad():
        count = classifier(first[None].to(device)).shape[-1]
    if len(images.classes) > count:
        raise ValueError(f"the classifier predicts {count} classes; the images have {len(images.classes)}")
    labels = getattr(images, "labels", torch.empty(0))
    if recipe.needs_labels and (labels < 0).any():
        raise ValueError("some images have no label; stage2={'labels': 'classifier'} trains without labels")
    return [first.shape[0], first.shape[-1]]


def evaluate(
    defended: nn.Module | Mapping[str, nn.Module],
    loader: DataLoader | Dataset | tuple[Tensor, Tensor],
    attacks: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("fgsm", "apgd", "apgd_margin"),
    threats: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("gray_box", "white_box"),
    *,
    train: DataLoader | Dataset | tuple[Tensor, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    output: str | Path | None = None,
    device: str = "auto",  # auto, cpu, gpu
    progress: bool = True,
    **options: Any,
) -> "pandas.DataFrame":
    """Attack classifiers and return one row per image, cell and judge (evaluation/schema.py, ROW_SCHEMA).

    Args:
        defended: A `Defended`, any module from images [B, C, H, W] in [0, 1] to logits, or several by name, in eval
            mode; they are left unchanged. Normalisation belongs inside the module.
        loader: The test images, as a DataLoader over a map-style data set, that data set itself, or (images, labels).
            They are evaluated in the data set's order, a chunk at a time; nothing else of the loader is used.
        attacks: Names as in conf/attack, or {label: options}, with the attack's `name` if the label is another.
        threats: Names, or {name: options} as in conf/threat/NAME.yaml.
        train: Training images. The routes `learned` and `affine` need them and are left out otherwise; the threat
            `universal` needs them with labels.
        classes: The names of the classes, if `loader` has none.
        output: A folder for ledger, rows, table and report, in which the same call continues after a crash. None keeps
            nothing.
        device: auto, cpu or gpu; `trainer` among the options has more.
        progress: Show a progress bar.
        options: Fields of `s2snet.config.evaluation.Evaluation`, as in conf/evaluate.yaml: `budgets` ({norm: radii in
            [0, 1] pixel units}, by default Linf 8/255), `images`, `adversarial`, `chunk` (here 128 by default), `keep`,
            `samples`, `fast`, `audit`, `seed`.

    Returns:
        A DataFrame whose `.attrs["table"]` has the lines of the table (evaluation/scores.py), worst cases included,
        each with the audit's verdict on its defence, and whose `.attrs["audit"]` has the findings
        (s2snet.audit.checks.Finding), the worst first.

    Raises:
        ValueError: In one line, for what cannot be evaluated.
    """
    modules = dict(defended) if isinstance(defended, Mapping) else {"defended": defended}
    test = _images(loader, classes)
    # A chunk is in memory at once with its gradients, and the images of a script may be large.
    options = {"chunk": 128, "trainer": Trainer(accelerator=device, progress=progress), **options}
    if output is None:
        options |= {"keep": "none", "samples": 0}
    with tempfile.TemporaryDirectory() as temporary:
        job = Job(
            config=evaluation_of(attacks, threats, **options),
            name=type(getattr(test, "source", test)).__name__,
            images=test,
            train=None if train is None else _images(train, classes),
            defences=[_defence(name, module) for name, module in modules.items()],
            output=Path(output or temporary),
            command="s2snet.evaluate(...)",
        )
        folder = run(job, lambda text: print(text, file=sys.stderr), probe=measure)
        findings = checks.write(folder)
        rows = pq.read_table(folder / "rows.parquet").to_pandas()
        rows.attrs["table"] = read_table(folder / "table.csv")
        rows.attrs["audit"] = findings
        if output is not None:
            write_report(folder)
            write_audit(folder)
    return rows


def _in_eval_mode(name: str, module: nn.Module) -> None:
    if module.training:
        raise ValueError(f"{name} is in training mode: its predictions depend on the batch; call .eval() first")


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
    """Return the images in the form that the loops read. Raises ValueError, in one line, if the first does not fit."""
    if isinstance(given, DataLoader):
        given = given.dataset
    if isinstance(given, IterableDataset | Shards):
        raise ValueError("expected a map-style data set, got a stream, which has no order to resume in")
    if isinstance(given, tuple):
        images, labels = given
        names = classes or [str(number) for number in range(int(labels.max()) + 1 if len(labels) else 0)]
        given = Images(images, labels, torch.arange(len(images)), list(names))
    if not len(given):
        raise ValueError("expected at least one image, got none")
    if not isinstance(given, Images | ImageFiles | Streamed):
        if not isinstance(given[0], tuple | list) or len(given[0]) < 2:
            kind, item = type(given).__name__, type(given[0]).__name__
            raise ValueError(f"expected items (image, label) in the {kind}, got {item}")
        given = Streamed(given, list(classes) if classes else None)
    _first(given)
    return given


def _first(images: Images | ImageFiles | Streamed) -> Tensor:
    """Return the first undamaged image. Raises ValueError, in one line, if it is not float32 [C, H, W] in [0, 1]."""
    image = first_readable(images.__getitem__, 0, len(images))[0]
    if not isinstance(image, Tensor):
        received = type(image).__name__
    elif image.dtype != torch.float32 or image.dim() != 3:
        received = f"{image.dtype} {list(image.shape)}"
    elif not (image.min() >= 0 and image.max() <= 1):
        received = f"values from {image.min():.3g} to {image.max():.3g}"
    else:
        return image
    raise ValueError(f"expected images float32 [C, H, W] in [0, 1], normalised only inside the network, got {received}")
