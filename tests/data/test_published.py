"""Test published data sets: the split, on generated stand-ins for torchvision's classes, and the real CIFAR-10."""

import os

import numpy as np
import pytest
import torch

from s2snet import data, torchvision_cpu

torchvision_cpu.patch()
from torchvision import datasets  # noqa: E402

REAL = os.environ.get("S2SNET_DATA")


def stand_in(monkeypatch, kind: str, shape: tuple, labels: str = "targets", classes: int = 10):
    """Replace torchvision's class by a stand-in with random pixels: 40 training images and 10 test images."""
    calls = []

    class StandIn:
        def __init__(self, root, train=None, split=None, download=False):
            calls.append((str(root), train if split is None else split, download))
            count = 40 if train or split == "train" else 10
            random = np.random.default_rng(count)
            self.data = random.integers(0, 256, (count, *shape), dtype=np.uint8)
            setattr(self, labels, random.integers(0, classes, count).tolist())
            self.classes = [f"class {number}" for number in range(classes)]

    monkeypatch.setattr(datasets, kind, StandIn)
    return calls


CASES = {
    "mnist": ("MNIST", (28, 28), "targets", (1, 32, 32)),
    "cifar10": ("CIFAR10", (32, 32, 3), "targets", (3, 32, 32)),
    "svhn": ("SVHN", (3, 32, 32), "labels", (3, 32, 32)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_test_set_is_the_published_one_and_validation_is_split_off_train(monkeypatch, tmp_path, name):
    kind, shape, labels, image_shape = CASES[name]
    calls = stand_in(monkeypatch, kind, shape, labels)
    splits = data.load(name, data_root=tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [36, 4, 10]
    assert splits.validation.index.tolist() == [0, 10, 20, 30]
    assert splits.test.index.tolist() == list(range(40, 50))
    assert {root for root, _, _ in calls} == {str(tmp_path)}
    image, label, index = splits.test[3]
    assert image.shape == image_shape and image.dtype == torch.float32 and image.max() <= 1
    assert (label, index) == (int(splits.test.labels[3]), 43)


def test_pixels_are_the_files(monkeypatch, tmp_path):
    stand_in(monkeypatch, "CIFAR10", (32, 32, 3))
    image = data.load("cifar10", data_root=tmp_path).test[0][0]
    stored = datasets.CIFAR10(tmp_path, train=False).data[0]
    assert torch.equal(image, torch.from_numpy(stored).permute(2, 0, 1).float() / 255)


def test_mnist_is_padded_with_zeros_and_repeated(monkeypatch, tmp_path):
    stand_in(monkeypatch, "MNIST", (28, 28))
    plain = data.load("mnist", data_root=tmp_path).test[0][0]
    assert (plain[:, :2] == 0).all() and (plain[:, :, -2:] == 0).all() and plain[:, 2:-2, 2:-2].mean() > 0.3
    three = data.load("mnist", data_root=tmp_path, channels=3).test[0][0]
    assert torch.equal(three, plain.repeat(3, 1, 1))


@pytest.mark.parametrize(
    "options, line",
    [
        ({"size": 20}, "data.size=20: expected at least 32, the side of the originals"),
        ({"channels": 1}, "data.channels=1: expected 3"),
        ({"classes": 7}, "data.classes=7: cifar10 has 10"),
    ],
)
def test_bad_options_are_one_line(monkeypatch, tmp_path, options, line):
    stand_in(monkeypatch, "CIFAR10", (32, 32, 3))
    with pytest.raises(ValueError) as error:
        data.load("cifar10", data_root=tmp_path, **options)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize("download", [False, True])
def test_missing_data_that_cannot_be_downloaded_names_the_folder(monkeypatch, tmp_path, download):
    from urllib.error import URLError

    class Missing:
        def __init__(self, root, download=False, **part):
            raise URLError("no way out") if download else RuntimeError("Dataset not found")

    monkeypatch.setattr(datasets, "CIFAR10", Missing)
    with pytest.raises(ValueError) as error:
        data.load("cifar10", data_root=tmp_path, download=download)
    assert str(error.value).startswith(f"cifar10 is not below {tmp_path}")
    assert ("could not be downloaded" in str(error.value)) == download
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not REAL, reason="needs S2SNET_DATA with cifar-10-batches-py")
def test_real_cifar10_has_its_published_sizes():
    try:
        splits = data.load("cifar10", data_root=REAL, download=False)
    except ValueError as missing:
        pytest.skip(str(missing))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45_000, 5_000, 10_000]
    assert splits.test.classes[:2] == ["airplane", "automobile"]
    assert torch.bincount(splits.test.labels).tolist() == [1_000] * 10
