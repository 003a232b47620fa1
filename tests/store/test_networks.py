"""The networks of a config: which weights are used, what is reported about them, what is refused."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import tiny
import torch
from tiny import TINY, composed, evaluate, train

from s2snet import torchvision_cpu
from s2snet.cli.settings import train_settings
from s2snet.models import build
from s2snet.models.vgg16 import LAYERS
from s2snet.store import networks, paths, weights
from s2snet.training.from_config import _build

torchvision_cpu.patch()
from torchvision import models as torchvision  # noqa: E402

REAL = os.environ.get("S2SNET_DATA", "nowhere")
SQUEEZENET = ["classifier=squeezenet1_1", "data.channels=3", "data.size=32", "data_root=root"]
WIDE = {"widths": [64, 128, 256, 512, 512], "convs": [2, 2, 3, 3, 3]}


@pytest.fixture(autouse=True)
def _other_classifiers(monkeypatch):
    """tiny's commands without the width that only the small CNN has."""
    monkeypatch.setattr(tiny, "TINY", [word for word in TINY if not word.startswith("classifier.")])


def find(*words: str):
    """(the classifier of `python train.py WORDS`, where it comes from, what was noted)."""
    settings, notes = train_settings(composed("train", *words)), []
    module, source = networks.find_classifier(settings, paths.Shelf(Path("runs/digits")), notes.append)
    return module, source, notes


def published_squeezenet(path: Path, classes: int = 10) -> dict:
    torch.manual_seed(0)
    state = torchvision.squeezenet1_1(num_classes=classes).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


def test_random_is_the_same_untrained_network_each_time_and_says_so():
    torch.manual_seed(5)
    one, source, notes = find(*SQUEEZENET, "classifier.weights=random")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)  # the caller's random state is left alone
    other = find(*SQUEEZENET, "classifier.weights=random")[0]
    assert source == "random" and one.header["fingerprint"] == other.header["fingerprint"]
    assert one.header["stage"] == "random" and not one.training
    assert notes == ["squeezenet1_1 is untrained (classifier.weights=random): only speed and memory are meaningful"]


def test_an_entry_is_found_below_data_root_and_its_size_is_noted():
    state = published_squeezenet(Path("root/weights/squeezenet1_1-b8a52dc0.pth"))
    module, source, notes = find(*SQUEEZENET, "classifier.mean=[0.1,0.2,0.3]")
    assert source == "root/weights/squeezenet1_1-b8a52dc0.pth"
    assert torch.equal(module.network.features[0].weight, state["features.0.weight"])
    assert module.config["mean"] == [0.485, 0.456, 0.406]  # the entry's own
    assert module.normalisation.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert module.header["stage"] == "published" and module.header["input"] == {"channels": 3, "size": 32}
    assert notes == ["IMAGENET1K_V1 of squeezenet1_1 is for images of 224 pixels; data.size=32"]


def test_a_bare_name_is_a_file_below_data_root_with_the_settings_normalisation():
    published_squeezenet(Path("root/weights/mine.pth"))
    module, source, notes = find(*SQUEEZENET, "classifier.weights=mine.pth", "classifier.mean=[0.1,0.2,0.3]")
    assert source == "root/weights/mine.pth" and notes == []
    assert module.config["mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet44", "resnet56"])
def test_real_weights_are_found_by_the_name_in_their_file(name):
    if not (Path(REAL) / "weights").is_dir():
        pytest.skip("needs S2SNET_DATA with weights/")
    module, source, notes = find(f"classifier={name}", "data=cifar10", f"data_root={REAL}")
    assert source.startswith(f"{REAL}/weights/{name}-") and notes == []
    assert module.header["stage"] == "published" and module.header["input"] == {"channels": 3, "size": 32}


def test_missing_weights_name_the_remedy():
    with pytest.raises(ValueError, match=r"nowhere.th: no such file; point data_root \(S2SNET_DATA\)"):
        find("classifier.weights=nowhere.th")


def test_an_entry_is_downloaded_with_its_hash_into_data_root(monkeypatch):
    asked = []

    def download(url, file, hash_prefix, progress):
        asked.append((url.rpartition("/")[2], file, hash_prefix, progress))
        published_squeezenet(Path(file))

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert find(*SQUEEZENET)[1] == "root/weights/squeezenet1_1-b8a52dc0.pth"
    assert asked == [
        ("squeezenet1_1-b8a52dc0.pth", "root/weights/squeezenet1_1-b8a52dc0.pth", "b8a52dc0", False)
    ]  # once


@pytest.mark.parametrize("error", [URLError("no way out"), RuntimeError("invalid hash value"), TimeoutError("slow")])
def test_a_failed_download_names_the_file_and_the_folder(monkeypatch, error):
    def fail(*words, **options):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ValueError) as raised:
        find(*SQUEEZENET)
    line = str(raised.value)
    assert line.startswith("squeezenet1_1-b8a52dc0.pth is not in root/weights and could not be downloaded (")
    assert "put it there by hand" in line and "\n" not in line


def test_published_weights_of_other_classes_are_one_line():
    published_squeezenet(Path("root/weights/squeezenet1_1-b8a52dc0.pth"), classes=1000)
    with pytest.raises(ValueError, match=r"50 of 52 tensors fit; of another shape: classifier.1.weight, .*bias$"):
        find(*SQUEEZENET)


def test_nothing_trained_says_what_else_there_is():
    with pytest.raises(FileNotFoundError) as error:
        find(*SQUEEZENET, "classifier.weights=null")
    assert str(error.value) == (
        "no weights at runs/digits/classifier-squeezenet1_1/weights.safetensors; `python train.py stage=classifier` "
        "makes them, or give classifier.weights=FILE or an entry such as DEFAULT, or classifier.weights=random "
        "(untrained)"
    )


def test_images_that_the_network_does_not_take_are_one_line():
    for words in (["stage=classifier", "classifier.weights=null"], ["stage=adversarial"]):
        with pytest.raises(ValueError, match=r"^inception_v3 cannot take images of 3 x 16 x 16: ") as error:
            train("classifier=inception_v3", "data.channels=3", *words)
        assert "\n" not in str(error.value)


def vgg16_file(path: str) -> dict:
    """The state dict of a VGG16 with random convolutions and, as the real one, more."""
    torch.manual_seed(0)
    state, width = {}, 3
    for place, name in LAYERS.items():
        out = WIDE["widths"][int(name[4]) - 1]
        state[f"features.{place}.weight"], state[f"features.{place}.bias"] = (
            torch.rand(out, width, 3, 3),
            torch.rand(out),
        )
        width = out
    torch.save(state | {"classifier.0.bias": torch.zeros(3)}, path)
    return state


def test_places_of_the_transplant_are_vgg16s():
    with torch.device("meta"):
        features = torchvision.vgg16().features
    convolutions = [place for place, layer in enumerate(features) if isinstance(layer, torch.nn.Conv2d)]
    assert convolutions == list(LAYERS)


def test_stage_1_begins_with_vgg16s_convolutions(capfd):
    state = vgg16_file("vgg.pth")
    words = ["autoencoder=segnet", "data.channels=3", "from_vgg16=vgg.pth"]
    settings = train_settings(composed("train", *words))
    stage, _ = _build(settings, paths.Shelf(Path("runs")), print)
    assert "26 tensors of the VGG16 vgg.pth" in capfd.readouterr().out
    for place, name in LAYERS.items():
        layer = getattr(stage.trained.encoder, name)
        assert torch.equal(layer.weight, state[f"features.{place}.weight"]), name
        assert torch.equal(layer.bias, state[f"features.{place}.bias"]), name


@pytest.mark.parametrize(
    "words, line",
    [
        ([], "VGG16 does not fit this encoder: 0 of 4 tensors fit; of another shape: conv11"),
        (["autoencoder.widths=[64,128,256,512,512]", "autoencoder.convs=[2,2,3,3,3]"],
         "24 of 26 tensors fit; missing: conv53.weight, conv53.bias"),
    ],
)  # fmt: skip
def test_a_transplant_that_does_not_fit_is_one_line(words, line):
    state = vgg16_file("vgg.pth")
    torch.save({key: value for key, value in state.items() if "features.28" not in key}, "vgg.pth")
    settings = train_settings(composed("train", "data.channels=3", "from_vgg16=vgg.pth", *words))
    if not words:
        settings.autoencoder.options |= {"widths": [4, 8], "convs": [1, 1]}
    with pytest.raises(ValueError) as error:
        _build(settings, paths.Shelf(Path("runs")), print)
    assert line in str(error.value) and "\n" not in str(error.value)


def authors_file(path: str, **options) -> dict:
    """A state dict as the authors save it, of the autoencoder that tiny's commands configure."""
    torch.manual_seed(1)
    segnet = build("segnet_small", widths=[4, 8], convs=[1, 1], **options)
    state = {f"module.{key}": value for key, value in segnet.state_dict().items() if "normalisation" not in key}
    torch.save({"model_state": state}, path)
    return state


def test_the_authors_files_serve_stage_2_and_evaluations(trained):
    state = authors_file("authors.pth")
    few = [f"runs={trained}", "recipes.stage2.epochs=1", "recipes.stage2.batch_size=1293", "classifier.widths=[8,16]"]
    path = train("stage=2", "from_autoencoder=authors.pth", "output=again", *few)
    tuned = weights.load(path)
    assert torch.equal(tuned.encoder.conv11.weight, state["module.encoder.conv11.weight"])
    words = ["defence=[none,autoencoder]", "defence.autoencoder.purifier=authors.pth", "attack=[fgsm]", "images=10"]
    _, lines = evaluate(*words, *few[:1], few[-1], "threat=[gray_box]", "budgets.linf=[8/255]", "output=out")
    assert any(line.startswith("Stage-1 autoencoder: ") and line.endswith(", authors.pth") for line in lines)


def test_the_authors_file_of_another_width_is_one_line():
    authors_file("authors.pth", channels=3)
    with pytest.raises(ValueError) as error:
        train("stage=2", "from_autoencoder=authors.pth")
    assert str(error.value).startswith("authors.pth: not the weights of this SegNet: ")


class Runs:
    """A pickle that would run code: touches the file `ran`."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


HOSTILE = {
    "classifier.weights": lambda: find("classifier.weights=evil.pth"),
    "classifier.weights of torchvision": lambda: find(*SQUEEZENET, "classifier.weights=evil.pth"),
    "classifier.weights below data_root": lambda: find(*SQUEEZENET),
    "classifier.weights of a target": lambda: find(
        "classifier=custom", "classifier.target=torch.nn:Flatten", "classifier.weights=evil.pth"
    ),
    "from_autoencoder": lambda: train("stage=2", "from_autoencoder=evil.pth"),
    "from_classifier": lambda: train("stage=2", "from_autoencoder=good.pth", "from_classifier=evil.pth"),
    "from_vgg16": lambda: train("stage=1", "from_vgg16=evil.pth"),
    "a defence's purifier": lambda: evaluate(
        "classifier.weights=random", "defence=[autoencoder]", "defence.autoencoder.purifier=evil.pth"
    ),
    "a defence's classifier": lambda: evaluate("defence=[none]", "defence.none.classifier=evil.pth"),
}


@pytest.mark.parametrize("load", HOSTILE.values(), ids=HOSTILE)
def test_a_pickle_that_would_run_code_is_refused_and_does_not(load):
    authors_file("good.pth")
    Path("root/weights").mkdir(parents=True)
    for path in ("evil.pth", "root/weights/squeezenet1_1-b8a52dc0.pth"):
        torch.save({"state_dict": Runs()}, path)
    with pytest.raises(ValueError) as error:
        load()
    assert "\n" not in str(error.value) and (
        "not a plain state dict" in str(error.value) or "not a .safetensors" in str(error.value)
    )
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text"])
def test_a_file_that_holds_no_state_dict_is_one_line(content):
    torch.save(content, "odd.pth")
    with pytest.raises(ValueError, match=r"^odd.pth: holds \w+, not a state dict$"):
        find("classifier.weights=odd.pth")


@pytest.mark.parametrize("content", [{"state_dict": 3}, {"model_state": torch.zeros(2)}, {1: 2}, {}])
def test_a_dict_that_is_no_state_dict_is_one_line(content):
    torch.save(content, "odd.pth")
    for load in (lambda: find("classifier.weights=odd.pth"), lambda: train("stage=2", "from_autoencoder=odd.pth")):
        with pytest.raises(ValueError, match=r"^odd.pth: not the weights of this \w+: 0 of \d+ tensors fit; missing: "):
            load()


def test_a_damaged_file_is_one_line():
    Path("cut.pth").write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(ValueError, match=r"^cut.pth: ") as error:
        find("classifier.weights=cut.pth")
    assert "\n" not in str(error.value)
