"""Define how each stage of a training is optimised. The defaults are for digits on a CPU."""

from dataclasses import dataclass
from typing import Any, ClassVar

from s2snet.config.choices import choose
from s2snet.config.option import option
from s2snet.config.pixels import Pixels, linf


def _crop(name: str, scale: Any) -> list[float] | None:
    """Return the least and the most share of a random crop; ValueError for anything else than two such numbers."""
    if scale is None:
        return None
    numbers = isinstance(scale, list | tuple) and len(scale) == 2 and all(type(s) in (int, float) for s in scale)
    if not numbers or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"{name}={scale}: null, or the least and the most share of the area, such as [0.08, 1.0]")
    return list(scale)


def _mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Return options by name. Raises ValueError for anything but a mapping or null."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value}: expected options by name, such as {{steps: 3}}, or null")
    return value


@dataclass
class Recipe:
    """The settings of every stage. `metrics` are those that it measures on the validation images."""

    metrics: ClassVar[tuple[str, ...]] = ()

    epochs: int = option(16, at_least=1, help="passes over the training images")
    batch_size: int = option(64, at_least=1, help="images per batch and device")
    optimiser: str = option("adam", choices=("adam", "adamw", "sgd"), help="adam, adamw, sgd")
    lr: float = option(4e-3, at_least=0, help="learning rate at the start of the schedule")
    momentum: float = option(0.9, help="sgd only")
    weight_decay: float = option(0.0, at_least=0, help="as the optimiser defines it")
    schedule: str = option(
        "poly",
        choices=("constant", "cosine", "one_cycle", "poly"),
        help="constant, cosine, one_cycle, poly: (1 - step / steps) ** 0.9",
    )
    clip: float | None = option(None, at_least=0, help="gradient norm above which the gradient is scaled down")
    accumulate: int = option(1, at_least=1, help="batches per optimiser step; the schedule counts steps")
    warmup: int = option(0, at_least=0, help="steps in which lr rises linearly, before the schedule")
    ema: float | None = option(
        None,
        above=0,
        below=1,
        help="decay of a moving average of the weights, such as 0.999; the average is validated and saved",
    )
    batch_norm: str = option(
        "train",
        choices=("train", "eval"),
        help="train, or eval: statistics stay as they are, for small batches and for equal runs on any ranks",
    )
    shift: int = option(0, at_least=0, help="random translation in pixels, if scale is null")
    flip: bool = option(False, help="mirror every other image at random")
    scale: Any = option(
        None, parse=_crop, help="random resized crop: least and most share of the image, such as [0.08, 1.0]"
    )
    early_stopping: str | None = option(
        None, help="a validation metric of the stage, such as val_loss; the best weights are kept"
    )
    patience: int = option(10, at_least=1, help="epochs without an improvement before early stopping")
    save_every: int | None = option(None, at_least=1, help="steps between checkpoints; null saves after each epoch")

    @property
    def needs_labels(self) -> bool:
        """True if the loss uses the true labels."""
        return True

    @property
    def keeps_codes(self) -> bool:
        """True if the encoder's code of each image is computed once and kept."""
        return False

    @property
    def kept_by(self) -> str | None:
        """Return the validation metric whose best epoch is kept; None keeps the last."""
        return self.early_stopping

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for a metric that the stage does not measure, or two warm-ups."""
        if self.early_stopping is not None:
            choose(f"{name}.early_stopping", self.early_stopping, self.metrics)
        if self.schedule == "one_cycle" and self.warmup:
            raise ValueError(f"{name}.warmup={self.warmup}: schedule=one_cycle has a warm-up of its own; use warmup=0")


@dataclass
class ClassifierRecipe(Recipe):
    """Cross-entropy of a classifier; a minute on two cores."""

    metrics = ("val_loss", "val_accuracy")

    epochs: int = option(24, at_least=1, help="passes over the training images")
    batch_size: int = option(32, at_least=1, help="images per batch and device")
    label_smoothing: float = option(0.0, at_least=0, below=1, help="share of each label that goes to all classes")


@dataclass
class Stage1Recipe(Recipe):
    """Squared error per pixel of the autoencoder; labels are not used."""

    metrics = ("val_loss", "val_psnr")

    shift: int = option(2, at_least=0, help="random translation in pixels, if scale is null")

    @property
    def needs_labels(self) -> bool:
        """False: an autoencoder learns from images alone."""
        return False


@dataclass
class AttackedRecipe(Recipe):
    """Settings of the stages that train on attacked images."""

    eps: Pixels = option(8 / 255, parse=linf, help="Linf radius of attacked examples, pixels in [0, 1]")
    attack: str = option("nfgsm", help="inner attack: fgsm, nfgsm, pgd, ...")
    attack_options: Any = option(None, parse=_mapping, help="options of the inner attack, such as {steps: 3}")
    ramp: float = option(0.3, at_least=0, below=1, help="share of the steps over which eps rises from 0")
    watched: int = option(
        256, at_least=0, help="validation images that PGD-10 attacks after each epoch; the best epoch is kept; 0: none"
    )

    @property
    def attacks(self) -> bool:
        """True if an attack generates the examples."""
        return True

    @property
    def kept_by(self) -> str | None:
        """Return the validation metric whose best epoch is kept; None keeps the last."""
        return self.early_stopping or ("val_robust_accuracy" if self.attacks and self.watched else None)

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for early stopping by what is not watched."""
        super().check_together(name)
        if self.early_stopping == "val_robust_accuracy" and not (self.attacks and self.watched):
            raise ValueError(
                f"{name}.early_stopping=val_robust_accuracy: needs attacked examples and {name}.watched > 0"
            )


@dataclass
class Stage2Recipe(AttackedRecipe):
    """The classifier's loss on the purified image: on clean ones, as in the paper, or on examples that move."""

    metrics = ("val_loss", "val_accuracy", "val_robust_accuracy")

    lr: float = option(5e-3, at_least=0, help="learning rate at the start of the schedule")
    shift: int = option(2, at_least=0, help="random translation in pixels, if scale is null")
    labels: str = option(
        "truth",
        choices=("truth", "classifier"),
        help="truth, or classifier: its own predictions on the clean image",
    )
    reconstruction_weight: float = option(0.0, help="weight of the squared error per pixel, added to the loss")
    cache: str = option(
        "none",
        choices=("none", "memory", "disk"),
        help="memory, disk: the encoder's code of each image is computed once and kept; needs shift, flip, scale off",
    )

    examples: str = option(
        "clean",
        choices=("clean", "adversarial", "static", "noise"),
        help="clean (the paper), adversarial (attacked through the purifier), "
        "static (attacked on the bare classifier), noise (for certificates)",
    )
    tuned: str | None = option(
        None,
        choices=("decoder", "autoencoder"),
        help="decoder, autoencoder: what learns; null: the decoder on clean examples, else the whole autoencoder",
    )
    route: str = option(
        "exact",
        choices=("exact", "identity", "soft"),
        help="how the inner attack's gradient passes through the purifier",
    )
    loss: str = option(
        "cross_entropy",
        choices=("cross_entropy", "kl"),
        help="cross_entropy, or kl to the classifier's own prediction on the clean image, which needs no labels",
    )
    clean_weight: float = option(0.5, at_least=0, help="weight of the same loss on the clean images")
    temperature: float = option(1.0, above=0, help="divides the logits in the training loss")
    sigma: float = option(0.25, above=0, help="standard deviation of the noise, pixels in [0, 1]")

    @property
    def attacks(self) -> bool:
        """True if an attack generates the examples."""
        return self.examples in ("adversarial", "static")

    @property
    def moves(self) -> bool:
        """True if the training examples change with the weights or the step."""
        return self.examples != "clean"

    @property
    def learns(self) -> str:
        """Return which part learns, the default resolved."""
        return self.tuned or ("autoencoder" if self.moves else "decoder")

    @property
    def needs_labels(self) -> bool:
        """True if the true labels are learned, and not the classifier's own predictions."""
        return self.labels == "truth" and not (self.moves and self.loss == "kl")

    @property
    def keeps_codes(self) -> bool:
        """True if the encoder's code of each image is computed once and kept."""
        return self.cache != "none"

    def check_together(self, name: str) -> None:
        """ValueError, in one line, if codes are to be kept of images that augmentation changes."""
        super().check_together(name)
        if self.cache != "none" and self.moves:
            raise ValueError(f"{name}.cache={self.cache}: {self.examples} examples change at every step; cache=none")
        if not self.moves and self.learns != "decoder":
            raise ValueError(f"{name}.tuned={self.tuned}: clean examples tune the decoder (the paper); leave it out")
        moved = [f"{name}.{key}={getattr(self, key)}" for key in ("shift", "flip", "scale") if getattr(self, key)]
        if self.keeps_codes and moved:
            raise ValueError(
                f"{name}.cache={self.cache}: codes can be kept only of images that stay as they are; "
                f"turn off {', '.join(moved)}"
            )


@dataclass
class AdversarialRecipe(AttackedRecipe):
    """Clean and attacked images against the current weights: half FGSM by default (arXiv 1412.6572, section 6)."""

    metrics = ("val_accuracy", "val_adversarial_error", "val_robust_accuracy")

    shift: int = option(1, at_least=0, help="random translation in pixels, if scale is null")
    alpha: float = option(0.5, at_least=0, below=1, help="weight of the clean images; trades counts both in full")
    trades: float | None = option(
        None,
        above=0,
        help="weight of KL(f(x) || f(x')) in place of the attacked cross-entropy (TRADES), such as 6",
    )
    attack: str = option("fgsm", help="inner attack: fgsm, nfgsm, pgd, ...")
    ramp: float = option(0.0, at_least=0, below=1, help="share of the steps over which eps rises from 0")
    watched: int = option(
        0, at_least=0, help="validation images that PGD-10 attacks after each epoch; the best epoch is kept; 0: none"
    )


@dataclass
class Recipes:
    """One recipe per stage."""

    classifier: ClassifierRecipe = option(ClassifierRecipe, help="of stage=classifier")
    stage1: Stage1Recipe = option(Stage1Recipe, help="of stage=1")
    stage2: Stage2Recipe = option(Stage2Recipe, help="of stage=2")
    adversarial: AdversarialRecipe = option(AdversarialRecipe, help="of stage=adversarial")
