"""Three damaged files among two hundred: skipped, named and counted in training, an error in evaluation."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny import evaluate, train
from torch.utils.data import DataLoader, Dataset
from trees import damage, plant

import s2snet
from s2snet import data
from s2snet.config.recipe import Recipe
from s2snet.report.page import write_report
from s2snet.store import weights
from s2snet.training.loaders import Augmented
from s2snet.training.skipped import Skipped

EVIL = "<script>alert(1)<"  # a folder's name may hold all but a slash
PHOTOS = [f"{kind}/{number:03}.jpg" for kind in ("ant", "bee", "cow", EVIL) for number in range(50)]
FEW = [
    f"recipes.{stage}.{what}" for stage in ("classifier", "stage1", "stage2") for what in ("epochs=2", "batch_size=64")
]


def words(root, *more: str) -> list[str]:
    return ["data=imagefolder", f"data.root={root}", *FEW, *more]


def load(root, **options) -> data.Splits:
    return data.load("imagefolder", root=str(root), size=16, **options)


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    """(the folder of 200 photographs, the names of three that are cut: one trains, one validates, one tests)."""
    root = plant(tmp_path_factory.mktemp("torn"), PHOTOS)
    splits = load(root)
    names = [part.path(7 if part is splits.train else 1) for part in (splits.train, splits.validation, splits.test)]
    damage(root, [str(name.relative_to(root)) for name in names])
    return root, names


@pytest.fixture(scope="module")
def runs(torn, tmp_path_factory):
    """A `runs` folder with a classifier and an autoencoder that were trained on those."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("classifier", "1"):
        train(*words(torn[0]), f"stage={stage}", f"runs={folder}")
    return folder


def test_training_skips_names_and_counts_them_whatever_the_workers(torn, runs, capfd):
    root, names = torn
    path = train(*words(root, "stage=1", "output=run", "trainer.workers=2"))
    assert path.read_bytes() == next(runs.rglob("autoencoder-*/weights.safetensors")).read_bytes()
    header = weights.read_header(path)
    assert header["data"]["damaged"] == 3
    assert [header["data"][part] for part in ("train", "validation", "test")] == [144, 15, 39]
    lines = Path("run/damaged.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == sorted(map(str, names))
    assert all("truncated" in line for line in lines)
    printed = capfd.readouterr().err
    assert printed.count("damaged images, skipped: 3, listed in run/damaged.txt\n") == 1
    assert "on 39 test images" in printed


def test_where_nothing_is_damaged_nothing_is_said(capfd):
    path = train("stage=1", "output=run", "recipes.stage1.epochs=1")
    assert weights.read_header(path)["data"]["damaged"] == 0
    assert not os.path.exists("run/damaged.txt") and "damaged" not in capfd.readouterr().err


def test_the_next_image_comes_in_so_that_batches_keep_their_size(torn):
    images = load(torn[0]).train
    recipe = Recipe(shift=2, flip=True)
    printed: list[str] = []
    augmented = Augmented(images, recipe, 0, printed.append)
    (broken,) = (place for place in range(len(images)) if images.path(place) == torn[1][0])
    assert augmented[(5, broken)][2] == augmented[(5, broken + 1)][2] == int(images.index[broken + 1])
    assert torch.equal(augmented[(5, broken)][0], augmented[(5, broken + 1)][0])
    assert len(set(printed)) == 1 and printed[0].startswith(f"{torn[1][0]}: ")


class Noting(Dataset):
    """Whose every item notes two lines, one of which others note as well."""

    def __init__(self, folder):
        self.skipped = Skipped(folder)

    def __len__(self) -> int:
        return 400

    def __getitem__(self, place: int) -> int:
        for number in (place, place // 2):
            self.skipped.note(f"file {number:03}: truncated")
        return place


def test_workers_write_one_log_without_mixing_lines(tmp_path):
    assert Skipped(tmp_path).count() == 0
    assert len(list(DataLoader(Noting(tmp_path), num_workers=2))) == 400
    assert Skipped(tmp_path).count() == 400
    wanted = "".join(f"file {number:03}: truncated\n" for number in range(400))
    assert (tmp_path / "damaged.txt").read_text() == wanted


def test_a_part_of_which_nothing_can_be_read_is_one_line(tmp_path):
    root = plant(tmp_path / "root", PHOTOS[:20])
    damage(root, PHOTOS[:20])
    with pytest.raises(ValueError, match=r"none of the 2 validation images can be read; the first: .*truncated"):
        train(*words(root, "stage=1", "output=run"))


def test_an_evaluation_refuses_them_before_anything_is_crafted(torn, runs, tmp_path):
    root = shutil.copytree(torn[0], tmp_path / "copy")
    base = ["data=imagefolder", f"data.root={root}", f"runs={runs}", "defence=[none]", "attack=[fgsm]", "output=out"]
    with pytest.raises(ValueError) as error:
        evaluate(*base, "data.test_every=1")
    line = str(error.value)
    assert line.startswith("3 of 200 test images are damaged; fix or remove them: ") and "\n" not in line
    assert all(str(name.relative_to(torn[0])) in line for name in torn[1])
    assert not os.path.exists("out")
    test = load(root).test
    damage(root, [str(test.path(place).relative_to(root)) for place in (11, 12, 13)])
    with pytest.raises(ValueError, match=r"^4 of 40 test images .*(\.jpg: .*){3}; \.\.\.$"):
        evaluate(*base)
    classifier = weights.load(next(runs.rglob("classifier-*/weights.safetensors")))
    with pytest.raises(ValueError, match=r"^4 of 40 test images"):
        s2snet.evaluate(classifier, test)
    folder, _ = evaluate(*base, "images=1")  # the damaged ones are not among those that were asked for
    assert (folder / "table.csv").is_file()


def test_surrogates_are_fitted_on_what_can_be_read_and_class_names_are_text(torn, runs):
    root, _ = torn
    chosen = ["defence=[autoencoder]", "attack=[fgsm]", "threat=[white_box]", "threat.white_box.routes=[affine]"]
    folder, printed = evaluate(
        f"data.root={root}", "data=imagefolder", f"runs={runs}", "images=1", "output=out", *chosen,
        "threat.white_box.fit_steps=4", "budgets.linf=[8/255]",
    )  # fmt: skip
    assert any(line.startswith("fitting the affine surrogate") for line in printed)
    html = write_report(folder).read_text()
    assert html.count("<script") == 2 and "alert(1)" in html  # the data and ours


def test_an_evaluation_without_training_images_leaves_out_the_routes_that_need_them(runs, tmp_path):
    root = plant(tmp_path / "whole", PHOTOS[::10])
    folder, _ = evaluate(
        "data=imagefolder", f"data.root={root}", "data.test_every=1", f"runs={runs}", "output=out",
        "budgets.linf=[8/255]", "defence=[autoencoder]", "attack=[fgsm]", "threat=[white_box]",
        "threat.white_box.routes=[identity,affine]",
    )  # fmt: skip
    table = (folder / "table.csv").read_text()
    assert "identity" in table and "affine" not in table


def test_images_without_labels_train_stage_1_and_a_stage_2_that_needs_none(runs, torn):
    more = words(torn[0], "data.labels=none", f"runs={runs}")
    train(*more, "stage=1", "output=one")
    with pytest.raises(
        ValueError, match=r"data=imagefolder has no labels: allowed are stage=1, and stage=2 with recipes.stage2.label"
    ):
        train(*more, "stage=2", "output=two")
    more.append("recipes.stage2.labels=classifier")
    with pytest.raises(ValueError, match=r"data.classes=null: unlabelled images do not determine the classifier's"):
        train(*more, "stage=2", "output=two")
    path = train(*more, "stage=2", "output=two", "data.classes=4")
    assert 0 <= weights.read_header(path)["metrics"]["accuracy"] <= 1
    with pytest.raises(ValueError, match=r"data=imagefolder has no labels: an evaluation needs them"):
        evaluate("data=imagefolder", f"data.root={torn[0]}", "data.labels=none", f"runs={runs}")
