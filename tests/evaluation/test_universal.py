"""The universal threat: one perturbation from training images, judged by every defence on images it has not seen."""

import io
import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
from jobs import Blur, Linear, Noisy, crafted, defence, evaluated, files, job, line, lines, pictures, rows, white_box
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from s2snet.audit import checks
from s2snet.evaluation import fitted
from s2snet.evaluation.cells import PlannedAttack
from s2snet.evaluation.forecast import forecast
from s2snet.evaluation.plan import plan

UNIVERSAL = {"universal": replace(white_box("exact", "identity")["white_box"], name="universal")}
GIVEN = {"threats": UNIVERSAL, "attacks": {"uap": {"steps": 20}}, "budgets": {"linf": [0.2], "l2": [1.0]}}


def unlabelled():
    train = pictures(40, seed=1)
    train.labels[:3] = -1
    return train


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Not to be written to."""
    return evaluated(tmp_path_factory.mktemp("done") / "r", **GIVEN)[0]


def shift_of(folder, key):
    """The perturbation of the cell with this key."""
    (cell,) = (cell for cell in plan(job(**GIVEN)).cells if cell.key == key)
    return load_file(folder / "ledger/fits" / f"{fitted.name_of_perturbation(cell)}.safetensors")["shift"]


def shifts(folder):
    return [load_file(path)["shift"] for path in sorted((folder / "ledger/fits").glob("*.safetensors"))]


def test_sources_are_the_bare_classifier_and_each_route_once_and_all_judge():
    cells = [cell for cell in plan(job(**GIVEN)).cells if cell.source is not None]
    sources = {(cell.views[0][1], cell.route) for cell in cells}
    assert sources == {("none", "exact"), ("blur", "exact"), ("blur", "identity")}
    assert len(cells) == 2 * len(sources)  # a cell for each norm
    for cell in cells:
        assert [view[0] for view in cell.views] == ["universal"]
        assert cell.judges == ["none", "blur"] and not cell.preimage["leave_early"]


def test_every_image_moves_by_the_one_perturbation_of_its_cell(done):
    test = pictures().images
    moves = 0
    for path in sorted((done / "ledger/crafted").glob("*/00000.safetensors")):
        shift = shift_of(done, path.parent.name)
        adversarial, clean = load_file(path)["adversarial"], test[:8]
        assert (adversarial - (clean + shift).clamp(0, 1)).abs().max() < 1e-6
        moves += bool(shift.any())
    assert moves == 6


def test_it_is_made_of_training_images_alone(done, monkeypatch):
    asked, real = [], fitted.perturbation
    train = pictures(40, seed=1)

    def watched(cell, given, device, **other):
        assert given is train
        asked.append(cell.key)
        return real(cell, given, device, **other)

    monkeypatch.setattr(fitted, "perturbation", watched)
    # other test images, and fewer of them: the same perturbations
    folder, _ = evaluated(train=train, images=pictures(9, seed=5), **GIVEN)
    assert len(asked) == 6
    assert all(any(torch.equal(a, b) for b in shifts(done)) for a in shifts(folder))


def test_other_training_images_make_others_and_other_chunks_do_not(done, monkeypatch):
    shutil.copytree(done, "r")
    other, _ = evaluated(**{**GIVEN, "train": pictures(40, seed=2)})  # into the same folder
    assert len(shifts(other)) == 12
    before = files(other)
    assert files(evaluated("fresh", **{**GIVEN, "train": pictures(40, seed=2)})[0]) == before
    monkeypatch.setattr(fitted, "perturbation", lambda *words, **options: pytest.fail("made again"))
    assert files(evaluated(**{**GIVEN, "train": pictures(40, seed=2)}, chunk=5)[0])["table.csv"] == before["table.csv"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_asks_about_64_training_images_and_an_epoch_about_all(seed, monkeypatch):
    train, asked = pictures(150, seed=3, first=0), []

    def spy(model, batches, *, eps, norm, steps=3, **options):
        for _, (images, labels) in zip(range(steps), batches, strict=False):
            places = [int((train.images == image).flatten(1).all(dim=1).nonzero()[0, 0]) for image in images]
            assert torch.equal(labels, train.labels[places])
            asked.append(places)
        return torch.zeros_like(train.images[0])

    (cell,) = (cell for cell in plan(job(**{**GIVEN, "budgets": {"linf": [0.2]}, "defences": [defence("none")]},
               seeds=[seed])).cells if cell.universal)  # fmt: skip
    monkeypatch.setattr(fitted, "attack_of", lambda cell: PlannedAttack("uap", spy, {}))
    fitted.perturbation(cell, train, torch.device("cpu"))
    assert [len(places) for places in asked] == [64, 64, 22]
    order = list(itertools.chain(*asked))
    assert sorted(order) == list(range(150)) != order
    first, asked[:] = list(asked), []
    fitted.perturbation(cell, train, torch.device("cpu"))
    assert asked == first
    cell.preimage["seed"] = 7
    asked.clear()
    fitted.perturbation(cell, train, torch.device("cpu"))
    assert asked != first


def test_it_fools_more_than_noise_of_its_length_and_counts_in_the_worst_case(done):
    clean = line(done, threat="clean", defence="none")["accuracy"]
    found = min(line["accuracy"] for line in lines(done, threat="universal", defence="none", norm="linf"))
    test = pictures()
    draw = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.sign(torch.randn(200, 1, 1, 12, 12, generator=draw))
    with torch.no_grad():
        answers = torch.stack([Linear()((test.images + one).clamp(0, 1)).argmax(dim=1) for one in noise])
    by_chance = (answers == test.labels).float().mean(dim=1).min().item()
    assert found < min(by_chance, clean)
    worst = line(done, threat="worst_case", defence="none", norm="linf")["accuracy"]
    assert worst <= found


def test_the_audit_does_not_ask_it_for_passes():
    """With options as conf/attack/uap.yaml gives them, steps among them; it asks the test images nothing."""
    folder, _ = evaluated(**GIVEN, audit="full")
    cells = json.loads((folder / "run.json").read_text())["cells"]
    assert {cell["passes"] for cell in cells if cell["attack"] == "uap"} == {None}
    checks.write(folder)
    assert not [f for f in checks.findings(folder) if f.check == "counted_passes" and f.verdict == checks.FAIL]


def test_a_defence_that_answers_at_random_is_averaged_over(monkeypatch):
    defences = [defence("noisy", Noisy())]
    folder, _ = evaluated(defences=defences, **{**GIVEN, "budgets": {"linf": [0.2]}})
    cells = plan(job(defences=defences, **{**GIVEN, "budgets": {"linf": [0.2]}})).cells
    (eot,) = (cell for cell in cells if cell.route == "eot")
    (exact,) = (cell for cell in cells if cell.route == "exact" and cell.views[0][1] == "noisy")
    assert eot.preimage["options"]["draws"] == 2
    made = [
        load_file(folder / "ledger/fits" / f"{fitted.name_of_perturbation(cell)}.safetensors") for cell in (eot, exact)
    ]
    assert not torch.equal(made[0]["shift"], made[1]["shift"])


def test_the_same_command_takes_up_what_was_made(done, monkeypatch):
    shutil.copytree(done, "r")
    monkeypatch.setattr(fitted, "perturbation", lambda *words, **options: pytest.fail("made again"))
    again, messages = evaluated(**GIVEN)
    assert not messages and files(again) == files(done) and crafted(again) == crafted(done)


def test_seeds_make_perturbations_of_their_own():
    folder, _ = evaluated(**{**GIVEN, "budgets": {"linf": [0.2]}}, seeds=[0, 1])
    assert len(shifts(folder)) == 6
    seeds = {row["seed"] for row in rows(folder, threat="universal")}
    assert seeds == {0, 1}


def test_one_that_cannot_be_made_is_a_failed_cell_and_not_robust():
    class Detached(nn.Module):
        def forward(self, images):
            return images.detach()

    folder, messages = evaluated(defences=[defence("none"), defence("cut", Detached())], **GIVEN)
    failed = [text for text in messages if text.startswith("failed")]
    assert len(failed) == 2 and all("cut exact uap" in text and "no gradient reaches" in text for text in failed)
    worst = line(folder, threat="worst_case", defence="cut", norm="linf")
    assert worst["status"].startswith("incomplete: universal exact uap failed (ValueError: no gradient reaches")
    # and it is tried again
    again, messages = evaluated(defences=[defence("none"), defence("cut", Detached())], **GIVEN)
    assert len([text for text in messages if text.startswith("failed")]) == 2 and files(again) == files(folder)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"train": None}, "threat.universal: needs training images, and there are none; leave it out of threat=[...]"),
        ({"train": unlabelled()}, "threat.universal: 3 of 40 training images have no label"),
        ({"attacks": {"pgd": {}, "uap": {}}}, "attack.pgd: no chosen threat uses this attack; add white_box to threat"),
        ({"attacks": {"uap": {"targets": "next"}}}, "attack.uap.targets: uap has no such option"),
        ({"threats": white_box()}, "attack.uap: no chosen threat uses this attack; add universal to threat=[...]"),
        (
            {"threats": white_box() | UNIVERSAL, "attacks": {"fgsm": {}}},
            "threat.universal: uses none of the chosen attacks",
        ),
        ({"budgets": {"l1": [1.0]}}, "attack.uap: supports linf, l2, and budgets has none of them"),
    ],
)
def test_what_cannot_be_is_one_line(changed, line):
    with pytest.raises(ValueError) as error:
        plan(job(**{**GIVEN, **changed}))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_rows_say_what_the_untouched_defence_answers(done):
    test = pictures()
    found = rows(done, threat="universal", defence="blur", route="exact", source="blur", norm="l2")
    (key,) = {row["crafted"] for row in found}
    shift = shift_of(done, key)
    with torch.no_grad():
        answers = Linear()(Blur()((test.images + shift).clamp(0, 1))).argmax(dim=1)
    assert [row["correct"] for row in found] == (answers == test.labels).tolist()


def test_the_plan_counts_surrogates_and_perturbations_and_cuts_no_figure():
    def printed(width):
        console = Console(file=io.StringIO(), width=width)
        forecast(
            job(**{**GIVEN, "threats": {"universal": replace(UNIVERSAL["universal"], routes=["learned"])}}), console
        )
        return console.file.getvalue()

    text = printed(120)
    assert text.count("fit the learned surrogate of blur") == 1
    assert text.count("fit universal blur learned uap") == text.count("fit universal none exact uap") == 2
    assert "\u2026" not in printed(60)
