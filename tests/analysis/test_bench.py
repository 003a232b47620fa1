"""The bench: parts are computed once, survive an interruption, and are computed again if a fact changes."""

import json

import pytest
import torch
from benches import bench, splits
from torch import nn

from s2snet.analysis.claim import HOLDS, Claim

CLAIM = Claim("one", "It is one.", "ours", "1 (n = 1)", HOLDS)


class Made:
    """Counts how often something was made."""

    def __init__(self):
        self.count = 0

    def rows(self):
        self.count += 1
        return [{"a": 1.5, "b": torch.tensor(2), "c": "x", "d": None, "e": True}]

    def tensors(self):
        self.count += 1
        return {"t": torch.arange(3.0)}


def test_rows_are_made_once_and_read_the_same_afterwards(tmp_path):
    made = Made()
    first = bench("toy", tmp_path, splits()).rows("table", made.rows, facts=[1, "x"], image=torch.zeros(2))
    again = bench("toy", tmp_path, splits()).rows("table", made.rows, facts=[1, "x"], image=torch.zeros(2))
    assert made.count == 1
    assert first == again == [{"a": 1.5, "b": 2, "c": "x", "d": None, "e": True}]


@pytest.mark.parametrize(
    "facts", [{"eps": 2}, {"eps": 1, "more": None}, {"module": nn.Linear(2, 2)}, {"image": torch.ones(2)}]
)
def test_another_fact_is_another_part(tmp_path, facts):
    made = Made()
    place = bench("toy", tmp_path, splits())
    torch.manual_seed(1)
    for known in ({"eps": 1}, {"module": nn.Linear(2, 2)}, {"image": torch.zeros(2)}):
        place.tensors("part", made.tensors, **known)
    before = made.count
    place.tensors("part", made.tensors, **facts)
    assert made.count == before + 1 == 4


def test_a_damaged_part_is_said_and_made_again(tmp_path):
    made, log = Made(), []
    place = bench("toy", tmp_path, splits(), log=log.append)
    place.rows("table", made.rows)
    place.tensors("part", made.tensors)
    for part in (tmp_path / "parts").iterdir():
        part.write_bytes(part.read_bytes()[:7])
    assert place.rows("table", made.rows)[0]["b"] == 2
    assert place.tensors("part", made.tensors)["t"].tolist() == [0, 1, 2]
    assert made.count == 4
    assert len(log) == 2 and all("computed again" in line for line in log)


def test_a_module_is_trained_once_whatever_the_random_state(tmp_path):
    trained = []

    def train(module):
        trained.append(module)
        with torch.no_grad():
            module.weight.add_(torch.rand(2, 2))

    first = bench("toy", tmp_path, splits()).trained("net", lambda: nn.Linear(2, 2), train)
    torch.rand(5)
    again = bench("toy", tmp_path, splits()).trained("net", lambda: nn.Linear(2, 2), train)
    other = bench("toy", tmp_path / "other", splits()).trained("net", lambda: nn.Linear(2, 2), train)
    assert len(trained) == 2
    assert torch.equal(first.weight, again.weight) and torch.equal(first.weight, other.weight)
    assert not first.training and not first.weight.requires_grad


def test_finish_leaves_the_tables_of_this_run_only(tmp_path):
    place = bench("toy", tmp_path, splits())
    place.rows("old", Made().rows)
    place.finish([CLAIM], {})
    place = bench("toy", tmp_path, splits())
    place.rows("new", Made().rows)
    place.rows("new", Made().rows, second=True)
    place.add_grid("g", torch.zeros(1, 2, 1, 4, 4), ["r"], ["a", "b"], "Title")
    place.finish([CLAIM], {"command": "x"})
    assert {path.name for path in tmp_path.glob("*.csv")} == {"new.csv"}
    assert (tmp_path / "new.csv").read_text() == "a,b,c,d,e\n1.5,2,x,,True\n1.5,2,x,,True\n"
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts["claims"][0]["found"] == "1 (n = 1)" and facts["grids"]["g"]["columns"] == ["a", "b"]


def test_a_defence_that_is_not_there_is_one_line(tmp_path):
    place = bench("toy", tmp_path, splits(), {"none": nn.Flatten().eval()})
    with pytest.raises(ValueError, match=r"needs the defence s2snet; got none"):
        place.defended("s2snet")


def test_images_come_in_order_and_no_more_than_there_are(tmp_path):
    data = splits(count=6)
    sample = bench("toy", tmp_path, data).images(4)
    assert sample.images.shape == (4, 1, 8, 8) and sample.index.tolist() == [12, 13, 14, 15]
    assert len(bench("toy", tmp_path, data).images(100, "train").labels) == 6


def test_a_verdict_is_one_of_three():
    with pytest.raises(ValueError, match="verdict 'true'"):
        Claim("one", "It is one.", "ours", "1", "true")
