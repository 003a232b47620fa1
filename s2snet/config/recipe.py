"""What the recipe of a training stage may say, from the command line or from Python. Imports no torch."""

from typing import Any

from s2snet.config.choices import choose

# What each stage measures on the validation images, and can stop early by.
MEASURED = {
    "classifier": ("val_loss", "val_accuracy"),
    "1": ("val_loss", "val_psnr"),
    "2": ("val_loss", "val_accuracy"),
    "adversarial": ("val_accuracy", "val_adversarial_error"),
}
LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "lr": 0,
    "weight_decay": 0,
    "clip": 0,
    "accumulate": 1,
    "warmup": 0,
    "shift": 0,
    "patience": 1,
    "save_every": 1,
}


def check(stage: str, recipe: dict[str, Any]) -> None:
    """ValueError, in one line, for a value that the stage cannot be trained by, and for two that exclude each other."""
    choose("recipe's optimiser", recipe["optimiser"], ("adam", "adamw", "sgd"))
    choose("recipe's schedule", recipe["schedule"], ("constant", "cosine", "poly"))
    choose("recipe's batch_norm", recipe["batch_norm"], ("train", "eval"))
    if stage == "2":
        choose("recipes.stage2.labels", recipe["labels"], ("truth", "classifier"))
        choose("recipes.stage2.cache", recipe["cache"], ("none", "memory", "disk"))
        _same_image_each_epoch(recipe)
    _crop(recipe["scale"])
    for key, least in LEAST.items():
        if recipe[key] is not None and not recipe[key] >= least:
            raise ValueError(f"{key}={recipe[key]} in the recipe of stage {stage}: at least {least}")
    if recipe["ema"] is not None and not 0 < recipe["ema"] < 1:
        raise ValueError(f"ema={recipe['ema']} in the recipe of stage {stage}: above 0 and below 1, or null")
    if recipe["early_stopping"] is not None:
        choose("recipe's early_stopping", recipe["early_stopping"], MEASURED[stage])


def _same_image_each_epoch(recipe: dict[str, Any]) -> None:
    """ValueError where codes are to be kept and augmentation would make other images of the same ones."""
    moved = [f"recipes.stage2.{key}={recipe[key]}" for key in ("shift", "flip", "scale") if recipe[key]]
    if recipe["cache"] != "none" and moved:
        raise ValueError(
            f"recipes.stage2.cache={recipe['cache']}: codes can be kept of images that stay as they are; "
            f"{', '.join(moved)} must be off"
        )


def _crop(scale: Any) -> None:
    """ValueError for a scale that is neither null nor two shares of an image's area."""
    if scale is None:
        return
    numbers = isinstance(scale, list | tuple) and len(scale) == 2 and all(type(s) in (int, float) for s in scale)
    if not numbers or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"recipe's scale={scale}: null, or the least and the most share of the area, such as [0.08, 1.0]"
        )
