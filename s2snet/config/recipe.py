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
        "poly", choices=("constant", "cosine", "poly"), help="constant, cosine, poly: (1 - step / steps) ** 0.9"
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

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for a metric that the stage does not measure."""
        if self.early_stopping is not None:
            choose(f"{name}.early_stopping", self.early_stopping, self.metrics)


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
class Stage2Recipe(Recipe):
    """Cross-entropy of the frozen classifier on the purified image; only the decoder learns."""

    metrics = ("val_loss", "val_accuracy")

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

    @property
    def needs_labels(self) -> bool:
        """True if the true labels are learned, and not the classifier's own predictions."""
        return self.labels == "truth"

    @property
    def keeps_codes(self) -> bool:
        """True if the encoder's code of each image is computed once and kept."""
        return self.cache != "none"

    def check_together(self, name: str) -> None:
        """ValueError, in one line, if codes are to be kept of images that augmentation changes."""
        super().check_together(name)
        moved = [f"{name}.{key}={getattr(self, key)}" for key in ("shift", "flip", "scale") if getattr(self, key)]
        if self.keeps_codes and moved:
            raise ValueError(
                f"{name}.cache={self.cache}: codes can be kept only of images that stay as they are; "
                f"turn off {', '.join(moved)}"
            )


@dataclass
class AdversarialRecipe(Recipe):
    """Half clean images, half FGSM examples against the current weights (arXiv 1412.6572, section 6)."""

    metrics = ("val_accuracy", "val_adversarial_error")

    shift: int = option(1, at_least=0, help="random translation in pixels, if scale is null")
    alpha: float = option(0.5, help="weight of the clean half")
    eps: Pixels = option(8 / 255, parse=linf, help="Linf radius of the examples, pixels in [0, 1]")


@dataclass
class Recipes:
    """One recipe per stage."""

    classifier: ClassifierRecipe = option(ClassifierRecipe, help="of stage=classifier")
    stage1: Stage1Recipe = option(Stage1Recipe, help="of stage=1")
    stage2: Stage2Recipe = option(Stage2Recipe, help="of stage=2")
    adversarial: AdversarialRecipe = option(AdversarialRecipe, help="of stage=adversarial")
