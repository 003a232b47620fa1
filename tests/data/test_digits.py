"""Test the split of the digits, and the properties of every data set in DATA."""

import os
from collections import Counter

import pytest
import torch
from trees import OPTIONS, plant_all

from s2snet import data
from s2snet.data import DATA


@pytest.fixture(scope="module", params=DATA)
def splits(request, tmp_path_factory):
    """Each data set: those not shipped only if S2SNET_DATA has them, those of image files on a few generated ones."""
    if request.param == "digits":
        return data.load("digits")
    if request.param in OPTIONS:
        planted = plant_all(tmp_path_factory.mktemp("planted"))
        return data.load(request.param, data_root=planted, **OPTIONS[request.param])
    try:
        return data.load(request.param, data_root=os.environ.get("S2SNET_DATA", "nowhere"), download=False)
    except ValueError as missing:
        pytest.skip(str(missing))


def test_sizes_are_the_fact_in_the_config():
    splits = data.load("digits")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [1293, 144, 360]
    assert splits.facts()["train"] == 1293
    assert splits.facts()["classes"] == [str(digit) for digit in range(10)]


def test_parts_are_disjoint_and_whole(splits):
    indices = [set(part.index.tolist()) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, indices)) == len(set.union(*indices)) == max(set.union(*indices)) + 1


def test_test_images_are_a_fifth_of_each_class():
    splits = data.load("digits")
    test = Counter(splits.test.labels.tolist())
    everything = test + Counter(splits.train.labels.tolist()) + Counter(splits.validation.labels.tolist())
    assert set(test) == set(range(10))
    assert all(abs(test[label] - everything[label] / 5) < 1 for label in everything)


def test_the_first_images_are_of_all_classes():
    """`images=50` takes the first 50, which would be zeros and ones if ordered by class."""
    test = data.load("digits").test
    assert set(test.labels[:50].tolist()) == set(range(10))
    assert test.index.tolist() == sorted(test.index.tolist())


def test_items_are_what_networks_expect(splits):
    for part in (splits.train, splits.validation, splits.test):
        image, label, index = part[1]
        assert image.dtype == torch.float32
        assert 0 <= image.min() < image.max() <= 1
        assert (label, index) == (int(part.labels[1]), int(part.index[1]))
        assert len(part.labels) == len(part.index) == len(part)
        if hasattr(part, "images"):  # in memory
            scale = 255 if part.images.dtype == torch.uint8 else 1
            assert torch.equal(image, part.images[1].float() / scale)
            assert len(part.images) == len(part)


def test_test_images_come_in_ascending_order_of_index_and_fingerprints_repeat(splits):
    assert splits.test.index.tolist() == sorted(splits.test.index.tolist())
    assert splits.labelled and max(splits.test.labels.tolist()) < len(splits.test.classes)
    assert splits.validation.fingerprint() == splits.validation.fingerprint() != splits.test.fingerprint()


@pytest.mark.parametrize("size, channels", [(8, 1), (28, 3), (32, 1), (33, 3)])
def test_size_and_channels(size, channels):
    test = data.load("digits", size=size, channels=channels).test
    assert test.images.shape == (360, channels, size, size)
    assert torch.equal(test.images[:, 0], test.images[:, -1])


def test_pixels_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch, test = load_digits(), data.load("digits", size=8).test
    assert torch.equal(test.images[:, 0], torch.from_numpy(bunch.images[test.index]).float() / 16)
    assert torch.equal(test.labels, torch.from_numpy(bunch.target[test.index]))


def test_fingerprint_is_stable_and_covers_everything():
    # Not resized, since interpolation may round otherwise on another processor.
    test = data.load("digits", size=8).test
    assert test.fingerprint() == "ed49b4d27154c0cf96c71f194d30a3f86cce4fe084078e455ba56eecaa185bd6"
    assert data.load("digits", size=8).test.fingerprint() == test.fingerprint()
    for change in ("images", "labels", "index"):
        other = data.load("digits", size=8).test
        getattr(other, change)[0] += 1
        assert other.fingerprint() != test.fingerprint(), change
    assert data.load("digits", size=16).test.fingerprint() != test.fingerprint()


@pytest.mark.parametrize(
    "name, options, line",
    [
        ("digit", {}, "unknown data set 'digit' (did you mean 'digits'?); allowed are digits"),
        (
            "digits",
            {"sise": 8},
            "data set digits has no option 'sise' (did you mean 'size'?); allowed are size, channels, ",
        ),
        ("digits", {"size": 7}, "data.size=7: expected at least 8, the side of the originals"),
        ("digits", {"channels": 2}, "data.channels=2: expected 1 or 3"),
        ("digits", {"classes": 9}, "data.classes=9: digits have 10 classes"),
    ],
)
def test_bad_options_are_one_line(name, options, line):
    with pytest.raises(ValueError) as error:
        data.load(name, **options)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
