"""The neutralising purifiers in an evaluation: the routes that say something, a worst case, one line for bad files."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from jobs import SIDE, evaluated, gray_box, line, lines, pictures, white_box
from jobs import defence as made_up

from s2snet.config.networks import Classifier
from s2snet.models import build
from s2snet.store import networks, weights

CLASSIFIER = {"name": "small_cnn", "widths": [4], "classes": 4}


def classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(**CLASSIFIER).eval().requires_grad_(False)


def per_input() -> torch.nn.Module:
    purifier = build("neutralised_per_input", classifier=classifier().config, size=SIDE).eval()
    purifier.classifier.load_state_dict(classifier().state_dict())
    return purifier


def static() -> torch.nn.Module:
    purifier = build("neutralised", size=SIDE).eval()
    purifier.masks[..., 2:6, 2:6] = 1
    return purifier


def test_both_have_their_routes_and_a_worst_case_of_all(tmp_path):
    images = pictures(8)
    with torch.no_grad():
        images.labels = classifier()(images.images).argmax(dim=1)
    module = classifier()
    folder, _ = evaluated(
        str(tmp_path),
        images=images,
        defences=[
            made_up("none", None, module),
            made_up("neutralised", static(), module),
            made_up("neutralised_per_input", per_input(), module),
        ],
        threats=gray_box() | white_box("exact", "identity", "soft", "learned", "affine", "eot"),
        attacks={"pgd": {"steps": 3, "random_start": False}},
        budgets={"l2": [0.5]},
        audit="off",
    )
    everyone = {"exact", "identity", "learned", "affine"}
    for name, routes in (("neutralised", everyone), ("neutralised_per_input", everyone | {"soft"})):
        found = lines(folder, defence=name, threat="white_box")
        assert {row["route"] for row in found if row["route"] in everyone | {"soft", "eot"}} == routes
        worst = line(folder, defence=name, threat="worst_case", norm="l2")
        assert worst["accuracy"] <= min(row["accuracy"] for row in lines(folder, defence=name, norm="l2"))


@pytest.mark.parametrize("name", ["neutralised", "neutralised_per_input"])
def test_without_the_study_there_is_one_line(name):
    with pytest.raises(FileNotFoundError, match=r"`python analyse.py study=\[regions\]` makes them") as error:
        tiny.job_of(f"defence=[{name}]", explicit=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [static, per_input])
def test_a_file_for_another_size_is_one_line(make, tmp_path):
    torch.manual_seed(0)
    bare = weights.with_header(build("small_cnn", widths=[8, 16]), "classifier", 1, 16)
    weights.save(bare, tmp_path / "c.safetensors", stage="classifier", input=bare.header["input"])
    weights.save(make(), tmp_path / "p.safetensors", study="regions")
    with pytest.raises(ValueError, match=r"cannot take images of 1 x 16 x 16: wrong shape for a neutralising") as error:
        tiny.job_of(
            "defence=[neutralised]",
            f"defence.neutralised.purifier={tmp_path}/p.safetensors",
            f"defence.neutralised.classifier={tmp_path}/c.safetensors",
            explicit=True,
        )
    assert "\n" not in str(error.value)


def test_code_inside_a_purifier_is_run_with_the_settings_options_only(tmp_path):
    inside = {"name": "custom", "target": "torch.nn:Flatten", "options": {"start_dim": 1}, "classes": SIDE * SIDE}
    weights.save(build("neutralised_per_input", classifier=inside, size=SIDE), tmp_path / "p.safetensors")

    def load(options: dict) -> torch.nn.Module:
        chosen = Classifier.of({"name": "custom", "target": "torch.nn:Flatten", "options": options})
        return networks.load_autoencoder(tmp_path / "p.safetensors", SimpleNamespace(classifier=chosen))

    assert load({"start_dim": 1}).classifier.target == "torch.nn:Flatten"
    with pytest.raises(ValueError, match=r"expected options={}, got {'start_dim': 1}"):
        load({})
    with pytest.raises(ValueError, match=r"loading it runs the code"):
        networks.load_autoencoder(tmp_path / "p.safetensors", SimpleNamespace(classifier=Classifier("small_cnn")))
