"""Pictures of a training: the right content in the right place, on time, and without any influence on the weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import train

from s2snet.training.curves import by_quantity, write_curves
from s2snet.training.pictures import GAP, SIDE, TITLE, grid


def tile(picture: Image.Image, row: int, column: int, size: int, factor: int) -> np.ndarray:
    """The pixels of one tile, back at the image's own size."""
    side = size * factor
    left, top = GAP + column * (side + GAP), TITLE + row * (side + GAP)
    whole = np.array(picture)[top : top + side, left : left + side]
    assert (whole == np.repeat(np.repeat(whole[::factor, ::factor], factor, 0), factor, 1)).all()  # nearest
    return whole[::factor, ::factor]


@pytest.mark.parametrize("size, channels", [(8, 1), (32, 3), (50, 3), (224, 3)])
def test_a_grid_shows_the_pixels(size, channels):
    torch.manual_seed(0)
    images = torch.randint(20, 200, (3, channels, size, size)) / 255
    others = images + torch.randint(-12, 13, images.shape) / 255
    picture = grid(images, others, "purified")
    factor = -(-SIDE // size)
    assert picture.size == (GAP + 3 * (size * factor + GAP), TITLE + 3 * (size * factor + GAP))
    for row in range(3):
        for column, wanted in enumerate((images, others, 0.5 + 10 * (others - images))):
            levels = (wanted[row].expand(3, -1, -1) * 255).round().permute(1, 2, 0).numpy()
            assert np.abs(tile(picture, row, column, size, factor) - levels).max() <= 1
    heads = np.array(picture.convert("L"))[:TITLE]
    for column in range(3):
        left = GAP + column * (size * factor + GAP)
        assert heads[:, left : left + size * factor].min() < 120  # a title is there


def test_what_is_outside_the_range_is_clipped():
    images = torch.full((1, 1, 8, 8), 0.5)
    others = torch.linspace(-3, 3, 64).view(1, 1, 8, 8)
    shown = tile(grid(images, others, "purified"), 0, 1, 8, 12)[..., 0]
    assert shown[0, 0] == 0 and shown[-1, -1] == 255
    grid(images, torch.full_like(images, float("nan")), "purified")


def written(*words: str) -> tuple[list[str], bytes]:
    """The PNGs of a run, and its weights file."""
    path = train(*words, "recipes.stage1.batch_size=512", "recipes.adversarial.epochs=1")
    folder = path.parent
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png")), path.read_bytes()


def test_pictures_come_every_n_epochs_and_change_no_weights():
    few = ("stage=1", "recipes.stage1.epochs=5")
    with_pictures, weights = written(*few, "output=with", "logger.pictures=2")
    assert with_pictures == ["curves.png", *(f"pictures/epoch_000{epoch}.png" for epoch in (2, 4, 5))]
    without, same = written(*few, "output=without", "logger.pictures=0")
    assert without == []
    assert weights == same


def test_of_an_adversarial_training_the_examples_are_shown():
    found, weights = written("stage=adversarial", "output=with")
    assert found == ["curves.png", "pictures/epoch_0001.png"]
    with Image.open("with/pictures/epoch_0001.png") as picture:
        assert len(np.unique(np.array(picture)[TITLE:, 2 * (SIDE + GAP) + GAP :])) > 2
    _, same = written("stage=adversarial", "output=without", "logger.pictures=0")
    assert weights == same


def test_a_new_run_removes_the_pictures_of_the_one_before():
    few = ("stage=1", "output=run", "logger.pictures=1")
    assert len(written(*few, "recipes.stage1.epochs=2")[0]) == 3
    found, _ = written(*few, "recipes.stage1.epochs=1", "overwrite=true")
    assert found == ["curves.png", "pictures/epoch_0001.png"]


def test_curves_are_placed_by_epoch(tmp_path):
    rows = [
        {"epoch": 0, "step": 4, "loss": 2.0},
        {"epoch": 0, "step": 9, "val_loss": 1.5, "val_psnr": 20.0},
        {"epoch": 1, "step": 14, "loss": 1.0},
        {"epoch": 1, "step": 19, "val_loss": 0.5, "val_psnr": float("nan")},
    ]
    panels = by_quantity(rows)
    assert panels["loss"] == {"loss": [(0.5, 2.0), (1.5, 1.0)], "val_loss": [(1.0, 1.5), (2.0, 0.5)]}
    assert list(panels) == ["loss", "psnr"]
    assert write_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 500
    first = (tmp_path / "curves.png").read_bytes()
    assert write_curves(rows, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == first
    assert not write_curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
