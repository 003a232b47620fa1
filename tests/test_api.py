"""`s2snet.evaluate` on modules and data of one's own: what comes back, what is refused, what stays as it was."""

import dataclasses
import inspect
import os
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import s2snet
from s2snet.config.evaluation import Threat
from s2snet.evaluation.schema import ROW_SCHEMA

CONF = Path(__file__).parents[1] / "conf"


class Own(nn.Module):
    """A user's classifier: not built by this project, without config and header."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

    def forward(self, images):
        return self.layers(images - 0.5)


class Blur(nn.Module):
    """A purifier of one's own; with `dropout` on it answers at random, in eval mode too."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images):
        return self.pool(self.dropout(images))


class Pictures(Dataset):
    classes = ("a", "b", "c", "d")

    def __init__(self, count: int = 20):
        self.images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.labels = own()(self.images).argmax(dim=1)
        self.asked = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        self.asked += 1
        return self.images[place], self.labels[place].item()


def own() -> Own:
    torch.manual_seed(1)
    return Own().eval()


QUICK = {"attacks": {"pgd": {"steps": 3}}, "chunk": 8, "progress": False}


def test_a_classifier_and_a_loader_give_a_row_per_image():
    test = Pictures()
    rows = s2snet.evaluate(own(), DataLoader(test, batch_size=7, shuffle=True), **QUICK)
    assert list(rows.columns) == ROW_SCHEMA.names
    assert len(rows) == 20 * 2  # clean, and the white box's one cell; there is no gray box before an own module alone
    clean = rows[rows.threat == "clean"]
    assert clean.image.tolist() == list(range(20)) and clean.correct.all()
    attacked = rows[rows.threat == "white_box"]
    assert attacked.linf.max() <= 8 / 255 and not attacked.correct.all()
    lines = {(line["threat"], line["attack"]): line for line in rows.attrs["table"]}
    assert lines["white_box", "pgd"]["accuracy"] == attacked.correct.mean()
    assert lines["worst_case", "worst_case"]["images"] == 20


def test_several_defences_their_own_purifier_and_training_images():
    classifier, test = own(), Pictures()
    rows = s2snet.evaluate(
        {"none": classifier, "blur": s2snet.Defended(Blur().eval(), classifier)},
        test,
        threats={"gray_box": {}, "white_box": {"routes": ["exact", "affine"], "fit_steps": 5}},
        train=(test.images, test.labels),
        **QUICK,
    )
    found = set(rows.groupby(["defence", "threat", "route"]).groups)
    assert found == {
        ("none", "clean", ""), ("blur", "clean", ""),
        ("none", "gray_box", "exact"), ("blur", "gray_box", "exact"),
        ("none", "white_box", "exact"), ("blur", "white_box", "exact"), ("blur", "white_box", "affine"),
    }  # fmt: skip
    without = s2snet.evaluate(
        s2snet.Defended(Blur().eval(), classifier),
        test,
        threats={"white_box": {"routes": ["exact", "affine"]}},
        **QUICK,
    )
    assert set(without.route) == {"", "exact"}


def test_a_random_defence_stays_random_and_is_averaged_over():
    """Dropout that is on in eval mode is the defence: attacking must not switch it off, nor must we."""
    purifier = Blur(0.3).eval()
    purifier.dropout.train()
    defended = s2snet.Defended(purifier, own())
    rows = [s2snet.evaluate(defended, Pictures(), threats=["white_box"], **QUICK) for _ in range(2)]
    assert rows[0].equals(rows[1])
    assert "eot" in set(rows[0].route)
    assert purifier.dropout.training and not purifier.training
    steps = rows[0][rows[0].route == "eot"].backwards
    assert set(steps) == {3 * 8}  # three steps of eight draws; nobody left early


def test_the_same_call_goes_on_from_its_folder(tmp_path):
    calls = {"output": tmp_path / "r", **QUICK}
    first = s2snet.evaluate(own(), Pictures(), **calls)
    timing = (tmp_path / "r/timing.jsonl").read_text()
    again = s2snet.evaluate(own(), Pictures(), **calls)
    assert again.equals(first) and (tmp_path / "r/timing.jsonl").read_text() == timing
    assert (tmp_path / "r/report.html").is_file()
    more = s2snet.evaluate(own(), Pictures(), seed=(0, 1), **calls)
    assert set(more.seed) == {-1, 0, 1}


def test_nothing_is_left_without_a_folder(tmp_path):
    before = set(os.listdir())
    s2snet.evaluate(own(), Pictures(), **QUICK)
    assert set(os.listdir()) == before


class Stream(IterableDataset):
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(
    "given, words, line",
    [
        (lambda: own().train(), {}, "defended is in training mode"),
        (own, {"attacks": ["pdg"]}, "attack.pdg.name=pdg (did you mean 'pgd'?): allowed are fgsm, "),
        (
            own,
            {"threats": ["grey_box"]},
            "threat.grey_box.name=grey_box (did you mean 'gray_box'?): allowed are gray_box, ",
        ),
        (own, {"keep": "some", "output": "r"}, "keep=some (did you mean 'sample'?): allowed are all, sample, none"),
        (own, {"loader": DataLoader(Stream())}, "expected a map-style data set, got a stream, which has no order"),
        (own, {"budgets": {"linf": [8.0]}}, "radii are in [0, 1] pixel units (did you mean 8/255?)"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(given, words, line):
    words = {"loader": Pictures(), **QUICK, **words}
    with pytest.raises(ValueError) as error:
        s2snet.evaluate(given(), **words)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_defaults_are_those_of_the_command_line():
    defaults = inspect.signature(s2snet.evaluate).parameters
    chosen = {
        key: value
        for line in yaml.safe_load((CONF / "evaluate.yaml").read_text())["defaults"]
        if isinstance(line, dict)
        for key, value in line.items()
    }
    assert list(defaults["attacks"].default) == chosen["attack"]
    assert list(defaults["threats"].default) == chosen["threat"]
    threat = dataclasses.asdict(Threat(name="white_box"))
    for key, value in yaml.safe_load((CONF / "threat/white_box.yaml").read_text()).items():
        assert threat[key] == value, key
