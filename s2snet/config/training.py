"""Define all settings of `python train.py`."""

from dataclasses import dataclass

from s2snet.config.choices import choose
from s2snet.config.networks import Networks
from s2snet.config.option import option
from s2snet.config.recipe import Recipe, Recipes
from s2snet.config.runtime import Logger, Trainer

STAGES = ("classifier", "1", "2", "adversarial")


@dataclass(kw_only=True)
class TrainCommand(Networks):
    """One training run: its stage, its recipe, and the files that it begins with."""

    stage: str = option("1", choices=STAGES, help="classifier, 1, 2, adversarial")
    seed: int = option(0, help="of every random choice")
    recipes: Recipes = option(Recipes, help="how each stage is optimised")
    trainer: Trainer = option(Trainer, help="devices")
    logger: Logger = option(Logger, help="where the run is logged")
    output: str | None = option(None, help="this run's folder, instead of the one below `runs`")
    from_classifier: str | None = option(
        None, help="stage 2: a weights file or hf://user/repo/file instead of what stage=classifier left in `runs`"
    )
    from_autoencoder: str | None = option(
        None, help="stage 2: likewise instead of what stage=1 left; or the authors' .pth"
    )
    from_vgg16: str | None = option(
        None, help="stage 1: the encoder begins with these VGG16 convolutions: a state dict, or IMAGENET1K_V1"
    )
    ckpt_path: str | None = option(None, help="last: resume an interrupted run; or a .ckpt file")
    overwrite: bool = option(False, help="retrain even if the folder holds a finished run")
    objective: str | None = option(None, help="a validation metric that a sweep optimises, such as val_loss")
    debug: bool = option(False, help="full tracebacks")

    @property
    def recipe(self) -> Recipe:
        """The recipe of this run's stage."""
        return getattr(self.recipes, f"stage{self.stage}" if self.stage in ("1", "2") else self.stage)

    def check_together(self, name: str) -> None:
        """ValueError, in one line, for an objective that the stage does not measure."""
        if self.objective is not None:
            choose("objective", self.objective, self.recipe.metrics)
