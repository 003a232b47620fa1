"""`Subspace`, the projection as a purifier: its formula, its file, its rows in a table, and what it refuses."""

import pytest
import torch
from tiny import evaluate

from s2snet.evaluation.scores import read_table
from s2snet.models import Subspace, build
from s2snet.store import weights

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(6, 3, 4, 4, generator=DRAW)


def basis(pixels: int, dimensions: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(pixels, dimensions, generator=DRAW))[0]


def test_it_projects_and_restores_the_mean_of_the_rest():
    q = basis(48, 5)
    kept = build("subspace", channels=3, size=4, dimensions=5).set(q, IMAGES)(IMAGES).flatten(1)
    x, mean = IMAGES.flatten(1), IMAGES.flatten(1).mean(dim=0)
    torch.testing.assert_close(kept, mean + (x - mean) @ q @ q.T)


def test_set_again_forgets_what_was_set():
    module = Subspace(3, 4, 5).set(basis(48, 5), torch.rand(3, 3, 4, 4))
    q = basis(48, 5)
    torch.testing.assert_close(module.set(q, IMAGES)(IMAGES), Subspace(3, 4, 5).set(q, IMAGES)(IMAGES))


def test_all_dimensions_keep_everything():
    torch.testing.assert_close(Subspace(3, 4, 48).set(basis(48, 48), IMAGES)(IMAGES), IMAGES)


def test_images_of_another_size_are_one_line():
    with pytest.raises(ValueError, match=r"^wrong shape for this subspace: .* of 3 x 4 x 4, got 3 x 8 x 8$"):
        Subspace(3, 4, 5)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"^dimensions=49: expected 1 to 48, the number of values of 3 x 4 x 4$"):
        Subspace(3, 4, 49)


def left(tmp_path, size: int = 16):
    """A weights file as the study leaves it, of three dimensions."""
    module = build("subspace", channels=1, size=size, dimensions=3)
    module.set(basis(size * size, 3), torch.rand(5, 1, size, size, generator=DRAW))
    path = tmp_path / "subspace.safetensors"
    weights.save(module, path, study="directions", classifier="0" * 64, input={"channels": 1, "size": size})
    return module, path


def test_a_file_rebuilds_it(tmp_path):
    module, path = left(tmp_path)
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(weights.load(path)(images), module(images))
    assert weights.load(path).config == {"name": "subspace", "channels": 1, "size": 16, "dimensions": 3}


FEW = ("classifier.weights=random", "defence=[none,subspace]", "images=12", "attack=[fgsm]", "audit=off")


def test_it_stands_in_the_table_with_its_worst_case(tmp_path):
    _, path = left(tmp_path)
    given = (
        "budgets.linf=[8/255]",
        f"defence.subspace.purifier={path}",
        "threat.white_box.fit_steps=5",
        f"output={tmp_path / 'result'}",
    )
    folder, messages = evaluate(*FEW, *given, explicit=True)
    lines = [line for line in read_table(folder / "table.csv") if line["defence"] == "subspace"]
    assert {line["threat"] for line in lines} >= {"clean", "gray_box", "white_box", "worst_case"}
    assert {line["route"] for line in lines} >= {"exact", "identity", "learned", "affine"}
    assert any("tuned to another classifier" in line for line in messages)


def test_a_missing_file_names_the_command_that_makes_it():
    with pytest.raises(FileNotFoundError, match=r"directions/subspace.safetensors; `python analyse.py study=\[dir"):
        evaluate(*FEW, explicit=True)


def test_data_of_another_size_are_one_line(tmp_path):
    _, path = left(tmp_path, size=8)
    with pytest.raises(ValueError, match=r"this subspace: expected images of 1 x 8 x 8, got 1 x 16 x 16") as error:
        evaluate(*FEW, f"defence.subspace.purifier={path}", explicit=True)
    assert "\n" not in str(error.value)
