"""Locate weights: names of runs, folders of runs, flat released files."""

import pytest

from s2snet.config.networks import Autoencoder, Classifier
from s2snet.store import paths

NETWORKS = Classifier("small_cnn"), Autoencoder("segnet_small")


def test_names_follow_from_kind_and_networks():
    assert {kind: paths.run_name(kind, *NETWORKS) for kind in paths.KINDS.values()} == {
        "classifier": "classifier-small_cnn",
        "autoencoder": "autoencoder-segnet_small",
        "s2snet": "s2snet-segnet_small-small_cnn",
        "adversarial": "adversarial-small_cnn",
    }


@pytest.mark.parametrize(
    "config, name",
    [
        ({"name": "torchvision", "arch": "resnet50"}, "resnet50"),
        ({"name": "timm", "arch": "resnet50"}, "timm_resnet50"),
        ({"name": "timm", "arch": "resnet18.tv_in1k"}, "timm_resnet18.tv_in1k"),
        ({"name": "custom", "target": "my_package.nets:build"}, "my_package.nets.build"),
        ({"name": "custom", "target": "../out:build"}, ".._out.build"),
        ({"name": "small_cnn"}, "small_cnn"),
    ],
)
def test_architectures_and_targets_have_runs_of_their_own(config, name):
    assert paths.run_name("s2snet", Classifier.of(config), NETWORKS[1]) == f"s2snet-segnet_small-{name}"


def test_shelf_finds_folders_and_flat_files(tmp_path):
    shelf = paths.Shelf(tmp_path)
    assert shelf.is_empty()
    assert paths.Shelf(tmp_path / "nowhere").is_empty()
    assert shelf.path("classifier", *NETWORKS) == tmp_path / "classifier-small_cnn" / paths.WEIGHTS
    flat = tmp_path / "classifier-small_cnn.safetensors"
    flat.touch()
    assert shelf.path("classifier", *NETWORKS) == flat
    assert not shelf.is_empty()


def test_a_folder_without_weights_is_empty(tmp_path):
    (tmp_path / "classifier-small_cnn" / "checkpoints").mkdir(parents=True)
    assert paths.Shelf(tmp_path).is_empty()
    (tmp_path / "classifier-small_cnn" / paths.WEIGHTS).touch()
    assert not paths.Shelf(tmp_path).is_empty()


def test_released_weights_lie_in_the_project():
    assert paths.released().is_dir()
    assert paths.released().name == "released"
