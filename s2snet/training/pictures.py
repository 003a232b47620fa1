"""Draw what a stage does to images every few epochs: image | purified | difference.

The images are the same each time, so that the pictures show the progress of the training.
"""

import io
import math
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from s2snet.atomic_io import write_whole
from s2snet.training.loggers import mirrors

FOLDER = "pictures"
IMAGES = 8  # rows of a picture
SIDE = 96  # least pixels of an image; smaller ones are enlarged by a whole factor
GAP, TITLE, LETTERS = 4, 24, 13  # pixels between images, above the columns, and of a letter
GAINS = (1, 2, 5, 10, 20, 50, 100)
GROUND, INK = 255, 40


class Pictures(Callback):
    """A callback that writes FOLDER/epoch_0005.png after each `every` epochs and the last one, and logs it to wandb.

    The images are spread over the first validation batch; rank zero only. It runs in validation (eval mode, no
    gradients) and draws no random numbers, so the trained weights are the same bits without it.
    """

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every

    def on_validation_batch_end(self, trainer: pl.Trainer, stage, outputs, batch, batch_index, loader_index=0) -> None:
        epochs = trainer.current_epoch + 1
        due = epochs % self.every == 0 or epochs == trainer.max_epochs
        if batch_index or not due or not trainer.is_global_zero or trainer.sanity_checking:
            return
        images, labels = batch[:2]
        spread = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long()
        images, labels = images[spread], labels[spread]
        comparison = stage.compared(images, labels)
        if comparison is None:
            return
        name, others = comparison
        path = self.folder / f"epoch_{epochs:04}.png"
        file = io.BytesIO()
        grid(images.cpu().float(), others.cpu().float(), name).save(file, format="png")
        write_whole(path, file.getvalue())
        for mirror in mirrors(trainer.loggers):
            mirror.log_picture("images", path, trainer.global_step)


def grid(images: Tensor, others: Tensor, name: str) -> Image.Image:
    """Return a picture with a row per image: the image, the other one, and their difference on gray.

    The column's title gives the gain of the difference. Both are [n, C, H, W] in [0, 1]; values outside are clipped,
    and images of other than three channels are shown as their mean.
    """
    differences = others - images
    gain = _gain(differences)
    columns = {"image": images, name: others, f"difference x {gain}": 0.5 + gain * differences}
    height, width = images.shape[2:]
    factor = math.ceil(SIDE / min(height, width))
    across, down = factor * width + GAP, factor * height + GAP
    picture = Image.new("RGB", (GAP + len(columns) * across, TITLE + len(images) * down), (GROUND,) * 3)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(LETTERS)
    for place, (title, column) in enumerate(columns.items()):
        left = GAP + place * across
        draw.text((left + (across - GAP) / 2, TITLE / 2), title, fill=(INK,) * 3, font=font, anchor="mm")
        for row, image in enumerate(column):
            tile = _tile(image).resize((factor * width, factor * height), Image.Resampling.NEAREST)
            picture.paste(tile, (left, TITLE + row * down))
    return picture


def _gain(differences: Tensor) -> int:
    """Return the largest of GAINS that keeps 99 % of all differences within the gray scale."""
    largest = float(np.quantile(differences.abs().nan_to_num(1.0).numpy(), 0.99))
    return max((gain for gain in GAINS if gain * largest <= 0.5), default=1)


def _tile(image: Tensor) -> Image.Image:
    if len(image) != 3:
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    levels = (image.nan_to_num(0.0).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
