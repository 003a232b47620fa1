"""Test image files as data sets: the transform, the parts, the labels, and invalid folders and tables."""

import csv
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import composed
from torch.utils.data import DataLoader
from trees import FLOWERS, IMAGENET, WNIDS, damage, plant, plant_all

from s2snet import data
from s2snet.cli import settings
from s2snet.data import image_files as files
from s2snet.data.decode import Damaged
from s2snet.data.image_files import find_damaged, first_readable, image_files


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A data root with `flowers` and `imagenet`. Read-only."""
    return plant_all(tmp_path_factory.mktemp("planted"))


def flowers(planted, **options) -> data.Splits:
    return data.load("imagefolder", data_root=planted, **{"root": "flowers", "size": 16, **options})


def names(part: data.ImageFiles) -> list[str]:
    return [part.path(place).relative_to(part.root).as_posix() for place in range(len(part))]


def table(root, rows: list[list], name: str = "labels.csv"):
    with open(root / name, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


# The transform


@pytest.mark.parametrize("size, resize", [(16, None), (16, 16), (32, 40), (224, None)])
@pytest.mark.parametrize("shape", [(20, 24), (61, 23), (300, 300), (7, 50)])
def test_pixels_are_those_of_torchvisions_presets(tmp_path, size, resize, shape):
    functional = files._functional()  # after which torchvision can be imported
    from torchvision.transforms._presets import ImageClassification

    plant(tmp_path, ["a/0.png", "b/0.png"], *shape)
    splits = data.load("imagefolder", root=str(tmp_path), size=size, resize=resize)
    usual = ImageClassification(
        crop_size=size, resize_size=resize or round(size * 256 / 224), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    image = splits.test[0][0]
    assert image.shape == (3, size, size)
    assert torch.equal(image, usual(Image.open(tmp_path / "a/0.png")))
    assert functional is files._functional()


def test_the_usual_proportion_is_that_of_the_published_weights():
    from s2snet.data.split import transform

    assert [transform(size, None, 3, (), ()).resize for size in (224, 299)] == [256, 342]


def test_gray(planted):
    image = flowers(planted, channels=1).test[0][0]
    assert image.shape == (1, 16, 16)


def test_an_image_so_long_that_resizing_is_the_bomb_is_damaged(tmp_path):
    plant(tmp_path, ["a/0.png", "b/0.png"])
    Image.new("L", (100_000, 1)).save(tmp_path / "a/0.png")
    with pytest.raises(Damaged, match="100000 x 1 pixels, too narrow to resize the shorter side to 256"):
        data.load("imagefolder", root=str(tmp_path)).test[0]


# The parts


def test_without_folders_for_the_parts_every_fifth_tests_and_classes_take_turns(planted):
    splits = flowers(planted)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [21, 3, 6]
    assert splits.test.classes == ["daisy", "rose", "tulip"]
    assert splits.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert set(names(splits.test)) == set(sorted(FLOWERS)[::5])
    _, label, index = splits.test[4]
    assert (label, index) == (1, int(splits.test.index[4]))
    assert splits.test.mean == (0.485, 0.456, 0.406)


def test_every_image_may_be_a_test_image(planted):
    splits = flowers(planted, test_every=1)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [0, 0, 30]
    assert splits.test.index.tolist() == list(range(30))
    assert splits.facts()["train"] == 0


@pytest.mark.parametrize(
    "parts, test", [(("train", "test"), "test"), (("train", "val"), "val"), (("train", "val", "test"), "test")]
)
def test_folders_for_the_parts_are_never_split_anew(tmp_path, parts, test):
    plant(tmp_path, [f"{part}/{flower}" for part in parts for flower in FLOWERS])
    splits = data.load("imagefolder", root=str(tmp_path), size=16)
    assert {name.partition("/")[0] for name in names(splits.test)} == {test}
    assert len(splits.test) == 30
    assert {name.partition("/")[0] for name in names(splits.train)} == {"train"}
    held_out = "val" if len(parts) == 3 else "train"
    assert {name.partition("/")[0] for name in names(splits.validation)} == {held_out}
    assert len(splits.train) + len(splits.validation) == (60 if len(parts) == 3 else 30)


def test_files_are_found_by_their_endings_and_links_are_followed_once(tmp_path):
    plant(tmp_path, ["elsewhere/x/0.png", "root/a/0.PNG", "root/a/deep/1.jpeg", "root/.hidden/2.png", "root/a/._3.png"])
    (tmp_path / "root/a/notes.txt").write_text("no image")
    os.symlink(tmp_path / "elsewhere/x", tmp_path / "root/b")
    os.symlink(tmp_path / "root", tmp_path / "root/a/circle")
    assert set(image_files(tmp_path / "root")) == {"a/0.PNG", "a/deep/1.jpeg", "b/0.png"}


# Labels


def test_labels_by_name_from_a_csv(planted, tmp_path):
    root = table(plant(tmp_path, ["x/1.png", "2.png", "3.png"]), [["picture", "kind", "more"], ["3.png", "cat", ""],
                 ["x/1.png", "dog", ""], ["2.png", "cat", "é, ü"]])  # fmt: skip
    options = {"labels": "labels.csv", "file_column": "picture", "label_column": "kind", "test_every": 1}
    test = data.load("imagefolder", root=str(root), size=8, **options).test
    assert test.classes == ["cat", "dog"]
    assert sorted(zip(names(test), test.labels.tolist(), strict=True)) == [("2.png", 0), ("3.png", 0), ("x/1.png", 1)]


def test_labels_by_number_may_leave_classes_out(tmp_path):
    root = table(
        plant(tmp_path, ["1.png", "2.png"]), [["file", "label", "name"], ["1.png", 7, "ox"], ["2.png", 3, "ass"]]
    )
    options = {"labels": "labels.csv", "name_column": "name", "test_every": 1}
    test = data.load("imagefolder", root=str(root), size=8, **options).test
    assert test.classes == ["0", "1", "2", "ass", "4", "5", "6", "ox"]
    assert dict(zip(names(test), test.labels.tolist(), strict=True)) == {"1.png": 7, "2.png": 3}
    assert len(data.load("imagefolder", root=str(root), size=8, classes=1000, **options).test.classes) == 1000


def test_a_column_may_say_the_part(tmp_path):
    rows = [[f"{k}.png", k % 2, part] for k, part in enumerate(["train", "train", "val", "test", "test", "train"])]
    root = table(plant(tmp_path, [row[0] for row in rows]), [["file", "label", "split"], *rows])
    splits = data.load("imagefolder", root=str(root), size=8, labels="labels.csv", split_column="split")
    assert set(names(splits.train)) == {"0.png", "1.png", "5.png"}
    assert set(names(splits.validation)) == {"2.png"}
    assert set(names(splits.test)) == {"3.png", "4.png"}


def test_no_labels(planted):
    splits = flowers(planted, labels="none")
    assert not splits.labelled and splits.test[0][1] == -1 and splits.test.classes == []
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [21, 3, 6]
    assert flowers(planted, labels="none", classes=7).test.classes == [str(number) for number in range(7)]


# Properties of data sets


def test_files_travel_to_workers_and_give_the_same(planted):
    test = flowers(planted).test
    copy = pickle.loads(pickle.dumps(test))
    assert copy.fingerprint() == test.fingerprint()
    for workers in (0, 2):
        images, labels, index = next(iter(DataLoader(test, batch_size=6, num_workers=workers)))
        assert torch.equal(images, torch.stack([test[place][0] for place in range(6)]))
        assert torch.equal(labels, test.labels) and torch.equal(index, test.index)
    assert torch.equal(test[-1][0], test[5][0])
    with pytest.raises(IndexError):
        test[6]


def test_fingerprints_cover_bytes_names_labels_and_the_transform_and_decode_nothing(tmp_path, monkeypatch):
    root = plant(tmp_path, ["a/0.png", "a/1.png", "b/0.png"])

    def fingerprint(**options):
        return data.load("imagefolder", root=str(root), **{"size": 16, "test_every": 1, **options}).test.fingerprint()

    monkeypatch.setattr(files, "picture", None)
    seen = [
        fingerprint(),
        fingerprint(size=15),
        fingerprint(resize=20),
        fingerprint(channels=1),
        fingerprint(labels="none"),
    ]
    content = (root / "a/1.png").read_bytes()
    (root / "a/1.png").write_bytes(content + b"\0")
    seen.append(fingerprint())
    (root / "a/1.png").write_bytes(content)
    (root / "a/1.png").rename(root / "a/2.png")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)
    (root / "a/2.png").rename(root / "a/1.png")
    assert fingerprint() == seen[0]


def test_damaged_files_are_found_and_the_next_comes_in(tmp_path):
    plant(tmp_path, FLOWERS)
    test = data.load("imagefolder", root=str(tmp_path), size=16, test_every=1).test
    broken = [names(test)[place] for place in (2, 28, 29)]
    damage(tmp_path, broken)
    reasons = find_damaged(test, range(len(test)))
    assert list(reasons) == [2, 28, 29]
    assert [line.partition(": ")[0] for line in reasons.values()] == [str(tmp_path / name) for name in broken]
    assert find_damaged(test, range(2)) == {} == find_damaged(data.load("digits").test, range(9))
    notes: list[str] = []
    for place, instead in ((1, 1), (2, 3), (28, 0)):
        assert torch.equal(first_readable(test.__getitem__, place, 30, notes.append)[0], test[instead][0])
    assert notes == [reasons[2], reasons[28], reasons[29]]
    good = test.only([place for place in range(30) if place not in reasons])
    assert len(good) == 27 and good.index.tolist() == [k for k in range(30) if k not in reasons]
    damage(tmp_path, [name for name in FLOWERS if name not in broken])
    with pytest.raises(ValueError, match="none of the 30 images can be read; the last: "):
        first_readable(test.__getitem__, 4, 30)


# ImageNet


def imagenet(planted, **options) -> data.Splits:
    return data.load("imagenet", data_root=planted, **{"classes": 3, "size": 16, "validation_every": 6, **options})


def test_imagenets_validation_images_test_and_wnids_are_numbered_in_order(planted):
    splits = imagenet(planted)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [15, 3, 6]
    assert splits.test.classes == list(WNIDS)
    for part in (splits.train, splits.test):
        assert all(WNIDS[label] in name for label, name in zip(part.labels.tolist(), names(part), strict=True))
    assert all(name.startswith("val/") for name in names(splits.test))


def test_a_flat_folder_of_validation_images_is_the_same_data_set(planted, tmp_path):
    plant(tmp_path / "imagenet", IMAGENET)
    rows = []
    for name in IMAGENET:
        _, wnid, file = name.split("/")
        if name.startswith("val/"):
            (tmp_path / "imagenet" / name).rename(tmp_path / "imagenet/val" / file)
            rows.append([file.removesuffix(".JPEG"), f"{wnid} 85 1 499 272 "])
    for wnid in WNIDS:
        (tmp_path / "imagenet/val" / wnid).rmdir()
    with pytest.raises(ValueError, match=r"has no class folders, and there is no file .*LOC_val_solution.csv"):
        imagenet(tmp_path)
    table(tmp_path / "imagenet", [["ImageId", "PredictionString"], *rows], "LOC_val_solution.csv")
    flat, deep = imagenet(tmp_path).test, imagenet(planted).test
    assert flat.labels.tolist() == deep.labels.tolist() and flat.index.tolist() == deep.index.tolist()
    assert all(torch.equal(flat[place][0], deep[place][0]) for place in range(6))


def test_imagenet_is_cropped_and_mirrored_unless_the_recipe_says_otherwise():
    def recipe(*words):
        found = settings.train_settings(composed("train", "stage=classifier", *words)).recipe
        return found.flip, found.scale

    assert recipe("data=imagenet") == (True, [0.08, 1.0])
    assert recipe("data=imagenet", "recipes.classifier.flip=false", "recipes.classifier.scale=null") == (False, None)
    assert recipe() == recipe("data=imagefolder") == (False, None)


def test_imagenet_without_training_images_evaluates(tmp_path):
    plant(tmp_path / "imagenet", [name for name in IMAGENET if name.startswith("val/")])
    splits = imagenet(tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [0, 0, 6]


# Errors


def empty_class(root):
    (root / "empty").mkdir()


def nothing(root):
    for name in FLOWERS:
        (root / name).unlink()


def stray(root):
    plant(root, ["stray.png"])


def other_class(root):
    plant(root, ["train/a/0.png", "val/b/0.png"])


@pytest.mark.parametrize(
    "change, options, line",
    [
        (None, {"root": None}, "data.root=null: name the folder with the images, absolute or below data_root ("),
        (None, {"root": "flower"}, "data.root=flower: no folder {0}/flower; give it absolute or below data_root ("),
        (None, {"classes": 4}, "data.classes=4: {0}/flowers has 3 classes (daisy, rose, tulip)"),
        (None, {"size": 0}, "data.size=0: at least 1"),
        (None, {"resize": 15}, "data.resize=15: expected an integer of at least data.size=16"),
        (None, {"resize": "big"}, "data.resize=big: expected an integer of at least data.size=16"),
        (None, {"channels": 4}, "data.channels=4: expected 1 or 3"),
        (None, {"test_every": 0}, "data.test_every=0: at least 1"),
        (None, {"labels": "folder"}, "data.labels=folder: expected folders, none or a CSV file; there is no file {0}"),
        (empty_class, {}, "the class folder {0}/flowers/empty has no image file (.bmp, "),
        (nothing, {"labels": "none"}, "data.root=flowers: no image file below {0}/flowers (.bmp, "),
        (stray, {}, "{0}/flowers/stray.png is not in a class folder; use data.labels=none for images without labels"),
        (other_class, {}, "the class folder {0}/flowers/val/b has no counterpart in {0}/flowers/train"),
    ],
)  # fmt: skip
def test_invalid_folders_are_one_line(tmp_path, change, options, line):
    plant(tmp_path / "flowers", FLOWERS)
    if change:
        change(tmp_path / "flowers")
    with pytest.raises(ValueError) as error:
        flowers(tmp_path, **options)
    assert str(error.value).startswith(line.format(tmp_path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, line",
    [
        ("name,label\n1.png,a\n", "data.file_column=file: allowed are name, label"),
        ("file,lable\n1.png,a\n", "data.label_column=label (did you mean 'lable'?): allowed are file, lable"),
        ("", "data.file_column=file: allowed are "),
        ("file,label\n1.png,\n", "{0}/labels.csv line 2: no label"),
        ("file,label\n1.png,a\n1.png,b\n", "{0}/labels.csv line 3: '1.png' is listed twice"),
        ("file,label\n1.png,a\n./1.png,b\n", "{0}/labels.csv line 3: '1.png' is listed twice"),
        ("file,label\n../1.png,a\n", "{0}/labels.csv line 2: '../1.png' is not a file below {0}"),
        ("file,label\nx/../../1.png,a\n", "{0}/labels.csv line 2: 'x/../../1.png' is not a file below {0}"),
        ("file,label\n/etc/passwd,a\n", "{0}/labels.csv line 2: '/etc/passwd' is not a file below {0}"),
        ("file,label\n1.png\0,a\n", "{0}/labels.csv line 2: '1.png\\x00' is not a file below {0}"),
        ("file,label\n,a\n", "{0}/labels.csv line 2: '' is not a file below {0}"),
        (f"file,label\n{'x' * 200_000},a\n", "{0}/labels.csv is not a CSV file in UTF-8 (field larger than field "),
        (b"file,label\n\xff\xfe,a\n", "{0}/labels.csv is not a CSV file in UTF-8 ("),
        ("file,label\n1.png,999999999999\n", "{0}/labels.csv: label 999999999999; above 100,000 "),
    ],
)  # fmt: skip
def test_invalid_tables_are_one_line(tmp_path, content, line):
    plant(tmp_path, ["1.png"])
    (tmp_path / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        data.load("imagefolder", root=str(tmp_path), labels="labels.csv", size=16)
    assert str(error.value).startswith(line.format(tmp_path)) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_numbers_beyond_the_classes_and_unknown_parts_are_one_line(tmp_path):
    root = table(plant(tmp_path, ["1.png"]), [["file", "label", "split"], ["1.png", 7, "tset"]])
    with pytest.raises(ValueError, match=r"data.classes=7: .*labels.csv has labels up to 7"):
        data.load("imagefolder", root=str(root), labels="labels.csv", classes=7)
    with pytest.raises(
        ValueError, match=r"labels.csv line 2: split=tset \(did you mean 'test'\?\): allowed are train,"
    ):
        data.load("imagefolder", root=str(root), labels="labels.csv", split_column="split")


def test_a_link_out_of_the_root_is_the_users_own_and_a_missing_file_is_damaged(tmp_path):
    plant(tmp_path, ["elsewhere/0.png", "root/a/1.png"])
    os.symlink(tmp_path / "elsewhere/0.png", tmp_path / "root/a/0.png")
    root = table(tmp_path / "root", [["file", "label"], ["a/0.png", "x"], ["a/1.png", "x"], ["a/gone.png", "y"]])
    test = data.load("imagefolder", root=str(root), labels="labels.csv", size=16, test_every=1).test
    assert list(find_damaged(test, range(3)).values()) == [f"{root}/a/gone.png: No such file or directory"]
    assert len(test.fingerprint()) == 64


@pytest.mark.parametrize(
    "options, line",
    [
        ({"classes": 1000}, "data.classes=1000: {0}/imagenet/train has 3 classes"),
        ({"root": "flowers"}, "data.root=flowers: no folder {0}/flowers/val; expected train/WNID/*"),
        ({"root": "nowhere"}, "data.root=nowhere: no folder {0}/nowhere; "),
    ],
)  # fmt: skip
def test_imagenet_elsewhere_is_one_line(planted, options, line):
    with pytest.raises(ValueError) as error:
        imagenet(planted, **options)
    assert str(error.value).startswith(line.format(planted))


REAL = os.environ.get("S2SNET_DATA")


@pytest.mark.skipif(
    not REAL or not os.path.isdir(f"{REAL}/imagenet-sample"), reason="needs S2SNET_DATA/imagenet-sample"
)
def test_the_real_photographs():
    columns = {"labels": "labels.csv", "label_column": "class_index", "name_column": "name", "classes": 1000}
    test = data.load("imagefolder", root="imagenet-sample", data_root=REAL, test_every=1, **columns).test
    assert len(test) == 200 and sorted(test.labels.tolist()) == list(range(0, 1000, 5))
    assert test.classes[0] == "tench" and test.classes[1] == "1"
    assert find_damaged(test, range(20)) == {}
    assert np.allclose(test[0][0].mean(), 0.45, atol=0.3)
