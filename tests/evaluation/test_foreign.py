"""Adversarial images from a file: read from what others save, checked, judged by all, and in the worst case."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import SIDE, Blur, defence, evaluated, files, gray_box, line, lines, pictures, rows, timing
from safetensors.torch import save_file
from tiny import evaluate

from s2snet import data
from s2snet.attacks import pgd
from s2snet.evaluation import foreign
from s2snet.evaluation.schema import CLEAN, WORST_CASE

SHAPE = (1, SIDE, SIDE)
EPS = 0.05


def moved(eps: float = EPS, count: int = 20) -> torch.Tensor:
    """The test images, every pixel nearly `eps` towards or beyond gray: inside the box, just inside the ball."""
    images, eps = pictures().images[:count], 0.999 * eps
    return torch.where(images > 0.5, images - eps, images + eps).clamp(0, 1)


def judged(adversarial, **changed):
    """An evaluation of nothing but a file of these tensors."""
    save_file(adversarial if isinstance(adversarial, dict) else {"adversarial": adversarial}, "given.safetensors")
    words = {"attacks": {}, "threats": {}, "budgets": {"linf": [EPS]}, "adversarial": ["given.safetensors"]}
    return evaluated(**(words | changed))


SAVED = {
    "ours.safetensors": lambda path, x: save_file({"adversarial": x, "image": torch.arange(len(x)) + 100}, path),
    "one.safetensors": lambda path, x: save_file({"whatever": x}, path),
    "ours.npz": lambda path, x: np.savez(path, adversarial=x.numpy(), image=np.arange(len(x)) + 100),
    "only.npz": lambda path, x: np.savez(path, x.numpy()),
    "tensor.pt": lambda path, x: torch.save(x, path),
    "robustbench.pt": lambda path, x: torch.save({"adv_complete": x, "y": torch.zeros(3)}, path),
    "others.pth": lambda path, x: torch.save({"x_adv": x, "labels": torch.zeros(3), "eps": 0.3}, path),
    "double.pt": lambda path, x: torch.save(x.double(), path),
}


@pytest.mark.parametrize("name, save", SAVED.items(), ids=SAVED)
def test_what_others_save_is_read(name, save):
    save(name, moved())
    found = foreign.read(name, SHAPE, 20)
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, moved())
    assert found.name == name.partition(".")[0]
    assert (found.places is not None) == name.startswith("ours")
    other = moved().clone()
    other[3, 0, 2, 2] += 1e-6
    save(name, other)
    assert foreign.read(name, SHAPE, 20).fingerprint != found.fingerprint


def test_integers_are_0_to_255():
    drawn = torch.randint(0, 256, (20, *SHAPE), generator=torch.Generator().manual_seed(0))
    drawn[0, 0, 0, :2] = torch.tensor([0, 255])
    for kind in (torch.uint8, torch.int64):
        torch.save(drawn.to(kind), "x.pt")
        assert torch.equal(foreign.read("x.pt", SHAPE, 20).images, drawn / 255)


def bad_safetensors(**tensors):
    return lambda: save_file(tensors, "x.safetensors")


def write(name: str, content: bytes):
    return lambda: Path(name).write_bytes(content)


class Thing:
    """An object that a pickle must not contain."""


X = torch.full((3, *SHAPE), 0.5)
BAD = {
    "no file": ("x.npz", lambda: None, "no such file"),
    "other ending": ("x.png", write("x.png", b"x"), "expected a .safetensors, .npz or .pt file"),
    "text as safetensors": ("x.safetensors", write("x.safetensors", b"text"), "cannot be read (...)"),
    "text as npz": ("x.npz", write("x.npz", b"text"), "cannot be read (...)"),
    "text as pt": ("x.pt", write("x.pt", b"text"), "cannot be read (...)"),
    "nothing as pt": ("x.pt", write("x.pt", b""), "cannot be read (...)"),
    "a pickle": ("x.pt", lambda: torch.save(Thing(), "x.pt"), "cannot be read (UnpicklingError)"),
    "objects": ("x.npz", lambda: np.savez("x.npz", adversarial=np.array([None])), "cannot be read (...)"),
    "words": ("x.npz", lambda: np.savez("x.npz", adversarial=np.array(["a"])), "cannot be read (...)"),
    "a list": ("x.pt", lambda: torch.save([X, X], "x.pt"),
               "expected a tensor or a dictionary with 'adversarial', got a list"),
    "no tensors": ("x.pt", lambda: torch.save({"eps": 1}, "x.pt"),
                   "expected a tensor named 'adversarial', got no tensors"),
    "which": ("x.safetensors", bad_safetensors(a=X, b=X + 0), "expected a tensor named 'adversarial', got a, b"),
    "flat": ("x.safetensors", bad_safetensors(adversarial=X.flatten(1)),
             "expected images (n, 1, 12, 12) as in the data, got (3, 144)"),
    "size": ("x.safetensors", bad_safetensors(adversarial=X[..., :-1].contiguous()),
             "expected images (n, 1, 12, 12) as in the data, got (3, 1, 12, 11)"),
    "nan": ("x.safetensors", bad_safetensors(adversarial=torch.cat([X, X * torch.nan])),
            "3 of 6 images are NaN or infinite"),
    "box": ("x.safetensors", bad_safetensors(adversarial=torch.cat([X, X + 0.6])),
            "3 of 6 images are outside [0, 1]; give them in [0, 1], not normalised"),
    "too many": ("x.safetensors", bad_safetensors(adversarial=torch.cat([X] * 7)),
                 "21 images for 20 of the data; add their `image` indices"),
    "indices": ("x.safetensors", bad_safetensors(adversarial=X, image=torch.arange(4)),
                "expected 3 `image` indices, one per image, got 4"),
}  # fmt: skip


@pytest.mark.parametrize("name, make, problem", BAD.values(), ids=BAD)
def test_what_cannot_be_judged_is_one_line(name, make, problem):
    make()
    with pytest.raises(ValueError) as error:
        foreign.read(name, SHAPE, 20)
    text = str(error.value)
    start, _, end = f"adversarial={name}: {problem}".partition("...")
    assert text.startswith(start)
    assert text.endswith(end)
    assert end or text == start
    assert "\n" not in text


def test_nothing_runs_or_is_written_where_a_file_is_bad():
    with pytest.raises(ValueError, match=r"adversarial=given.safetensors: 20 of 20 images are outside"):
        judged(moved() + 1)
    assert not Path("r").exists()


def test_foreign_images_are_judged_by_every_defence_and_are_in_the_worst_case():
    blurred = defence("blur", Blur()).module
    adversarial = pgd(blurred, pictures().images, pictures().labels, eps=EPS, steps=10)
    folder, _ = judged(adversarial, attacks={"fgsm": {}}, threats=gray_box())
    clean = {row["image"]: row for row in rows(folder, threat=CLEAN, defence="none")}
    for name in ("none", "blur"):
        found = rows(folder, defence=name, threat="foreign", attack="given")
        assert [row["image"] for row in found] == list(clean)
        module = defence("none").module if name == "none" else blurred
        with torch.no_grad():
            assert [row["prediction"] for row in found] == module(adversarial).argmax(dim=1).tolist()
        assert all(0.5 * EPS < row["linf"] <= EPS for row in found)
        assert {(row["forwards"], row["backwards"], row["route"], row["source"]) for row in found} == {(0, 0, "", "")}
        wrong = {row["image"] for row in rows(folder, defence=name) if not row["correct"]}
        worst = line(folder, defence=name, threat=WORST_CASE)
        assert worst["status"] == "done"
        assert worst["accuracy"] == pytest.approx(1 - len(wrong) / 20)
    only = {row["image"] for row in rows(folder, defence="blur", threat="foreign") if not row["correct"]}
    only -= {row["image"] for row in rows(folder, defence="blur") if row["threat"] != "foreign" and not row["correct"]}
    assert only  # images that nothing but the file turns: the worst case has them from there


def test_images_beyond_the_budget_do_not_count():
    adversarial = moved()
    adversarial[:10] = moved(0.2)[:10]
    folder, _ = judged(adversarial, budgets={"linf": [EPS, 0.25]})
    small, large = (rows(folder, defence="none", attack="given", budget=budget) for budget in (EPS, 0.25))
    assert [row["linf"] > 0 for row in small] == [False] * 10 + [True] * 10
    clean = rows(folder, defence="none", threat=CLEAN)
    assert [row["prediction"] for row in small[:10]] == [row["prediction"] for row in clean[:10]]
    assert all(row["linf"] > 0.15 for row in large[:10])
    assert not timing(folder, "foreign")


def test_rounding_beyond_the_rim_is_projected_and_noted():
    """As a library that computes in float32 leaves its images."""
    images = pictures().images
    beyond = images.clone()
    middle = (images > 0.2) & (images < 0.8)
    beyond[middle] = (images.double() + EPS + 2e-9).float()[middle]
    beyond[middle] = torch.where(beyond.double() - images.double() > EPS, beyond, beyond.nextafter(torch.ones(())))[
        middle
    ]
    excess = (beyond.double() - images.double()).flatten(1).amax(dim=1) - EPS
    assert (excess > 0).all()
    assert excess.max() < 1e-5 * EPS
    folder, _ = judged(beyond)
    found = rows(folder, defence="none", attack="given")
    assert all(0.9999 * EPS < row["linf"] <= EPS for row in found)
    notes = timing(folder, "foreign")
    assert [(note["foreign"], note["chunk"], note["outside"]) for note in notes if note["foreign"] == "given"] == [
        ("given", 0, 8), ("given", 1, 8), ("given", 2, 4)
    ]  # fmt: skip
    assert max(note["excess"] for note in notes) == pytest.approx(excess.max().item())


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_too(norm):
    images = pictures().images
    step = {"l2": 0.01, "l1": 0.004}[norm]
    adversarial = torch.where(images > 0.5, images - step, images + step)
    order = {"l2": 2, "l1": 1}[norm]
    lengths = (adversarial.double() - images.double()).flatten(1).norm(order, dim=1)
    eps = lengths.max().item()
    folder, _ = judged(adversarial, budgets={norm: [eps, 0.9 * lengths.min().item()]})
    inside = rows(folder, defence="none", attack="given", budget=eps)
    assert [row[norm] for row in inside] == pytest.approx(lengths.tolist())
    assert {row[norm] for row in rows(folder, defence="none", attack="given") if row["budget"] != eps} == {0.0}


def test_after_rounding_to_8_bits():
    """A cell of its own: what is left of an image in a file of 8 bits, where that is inside the ball."""
    images = (pictures().images * 255).round() / 255
    adversarial = torch.where(images > 0.5, images - 12.3 / 255, images + 12.3 / 255)
    test = pictures()
    test.images = images
    folder, _ = judged(adversarial, images=test, budgets={"linf": [12.4 / 255, 0.01]})
    assert {found["attack"] for found in lines(folder, threat="foreign", route="")} == {"given", "given_8bit"}
    rounded = rows(folder, defence="none", attack="given_8bit", budget=12.4 / 255)
    assert [row["linf"] for row in rounded] == pytest.approx([12 / 255] * 20, abs=1e-6)
    as_it_is = rows(folder, defence="none", attack="given", budget=12.4 / 255)
    assert [row["linf"] for row in as_it_is] == pytest.approx([12.3 / 255] * 20, abs=1e-6)
    assert {row["linf"] for row in rows(folder, defence="none", attack="given_8bit", budget=0.01)} == {0.0}


def test_fewer_images_than_the_data_and_in_any_order():
    """By index, or as the first ones; the others stay as they are."""
    places = torch.tensor([17, 3, 9])
    folder, _ = judged({"adversarial": moved()[places], "image": places + 100})
    by_index = {row["image"]: row for row in rows(folder, defence="none", attack="given")}
    assert {image for image, row in by_index.items() if row["linf"] > 0} == {117, 103, 109}
    with torch.no_grad():
        predictions = defence("none").module(moved()).argmax(dim=1)
    assert all(by_index[100 + place]["prediction"] == predictions[place] for place in places.tolist())
    folder, _ = judged(moved(count=9), output="first")
    assert [row["linf"] > 0 for row in rows(folder, defence="none", attack="given")] == [True] * 9 + [False] * 11


def test_a_file_is_judged_once_and_another_content_anew():
    folder, _ = judged(moved())
    before = files(folder)
    judged_files = {path: path.stat().st_mtime_ns for path in folder.rglob("ledger/judged/**/*.parquet")}
    assert files(judged(moved())[0]) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("ledger/judged/**/*.parquet")} == judged_files
    changed, _ = judged(moved(0.02))
    assert max(row["linf"] for row in rows(changed, attack="given")) < 0.021


def test_several_files_from_the_command_line():
    test = data.load("digits", size=16).test
    adversarial = (test.images[:12] + 0.1).clamp(max=1)
    save_file({"adversarial": adversarial, "image": test.index[:12]}, "first.safetensors")
    np.savez("second.npz", (test.images - 0.1).clamp(min=0).numpy())
    words = ["images=12", "attack=[]", "threat=[]", "defence=[none]", "+defence.mine.purifier={name: bit_depth}"]
    words += ["classifier.weights=random", "samples=0", "budgets.linf=[0.101]", "budgets.l2=[]", "audit=off"]
    words += ["adversarial=[first.safetensors,second.npz]"]
    folder, _ = evaluate(*words)
    assert {found["attack"] for found in lines(folder, threat="foreign", route="")} == {
        "first", "first_8bit", "second", "second_8bit"
    }  # fmt: skip
    assert rows(folder, threat="foreign", defence="none")
    for found in rows(folder, threat="foreign", defence="mine"):
        assert found["linf"] <= 0.101
        assert found["linf"] > 0.09 or found["attack"].endswith("8bit")  # rounded, some are beyond the budget
    assert {found["status"] for found in lines(folder)} == {"done"}
