"""The plan before it runs: what each cell costs, what is printed, and that nothing is started."""

import io
import itertools
import re
from pathlib import Path

import pytest
from jobs import Blur, Noisy, defence, evaluated, gray_box, job, rows, white_box
from rich.console import Console
from tiny import job_of

from s2snet.attacks import ATTACKS
from s2snet.config.evaluation import Threat
from s2snet.evaluation.forecast import forecast
from s2snet.evaluation.plan import plan

QUERY = {"query": Threat("query", [])}
BUDGETED = {name: {} for name, attack in ATTACKS.items() if not attack.minimal}
FEW = {name: {"steps": 5} for name in BUDGETED if name != "fgsm"} | {"fgsm": {}}


@pytest.mark.parametrize("options", [{}, {"draws": 3}, {"targets": "next"}], ids=["plain", "draws", "targets"])
def test_passes_foreseen_are_those_taken_where_nobody_leaves_early(options):
    """Of every attack with a budget, by every kind of source; a defence that draws keeps everybody."""
    attacks = {name: {**given, **options} for name, given in FEW.items()}
    if "targets" in options:
        del attacks["least_likely"]  # it has its own
    words = {
        "defences": [defence("noisy", Noisy())],
        "threats": gray_box() | white_box("identity", "smoothed", draws=4) | QUERY,
        "attacks": attacks,
        "count": 6,
        "samples": 0,
    }
    planned = plan(job(**words))
    foreseen = {cell.key: planned.costs.of(cell) for cell in planned.cells}
    folder, messages = evaluated(**words)
    assert not messages
    compared = set()
    for key, cell in itertools.groupby(rows(folder), lambda row: row["crafted"]):
        cell = list(cell)
        if key:
            assert (cell[0]["attack"], foreseen[key].forwards) == (cell[0]["attack"], cell[0]["forwards"])
            assert foreseen[key].backwards == cell[0]["backwards"]
            assert len({(row["forwards"], row["backwards"]) for row in cell}) == 1
            compared.add((cell[0]["attack"], cell[0]["route"], cell[0]["threat"]))
    assert {name for name, _, _ in compared} == set(attacks)
    assert {route for _, route, _ in compared} >= {"exact", "identity", "smoothed", "eot"}


@pytest.mark.parametrize("name", ["deepfool", "ddn", "fmn"])  # cw and lbfgs search until they are content
def test_minimal_attacks_cost_at_most_what_is_foreseen(name):
    words = {
        "defences": [defence("none")],
        "threats": white_box(),
        "attacks": {name: {"steps": 5}},
        "budgets": {norm: [] for norm in ATTACKS[name].norms},
        "count": 6,
        "samples": 0,
    }
    planned = plan(job(**words))
    folder, messages = evaluated(**words)
    assert not messages
    cells = [cell for cell in planned.cells if not cell.clean]
    assert len(cells) == len(ATTACKS[name].norms)
    for cell in cells:
        cost, taken = planned.costs.of(cell), rows(folder, crafted=cell.key)
        assert cost.backwards > 0
        assert max(row["forwards"] for row in taken) <= cost.forwards
        assert max(row["backwards"] for row in taken) <= cost.backwards
        assert max(row["forwards"] for row in taken) > 0.7 * cost.forwards


def test_leaving_early_costs_less_than_is_foreseen():
    words = {"defences": [defence("none")], "threats": white_box(), "attacks": {"pgd": {"steps": 20}}}
    planned = plan(job(**words, budgets={"linf": [0.2]}))
    cost = planned.costs.of(planned.cells[-1])
    assert (cost.forwards, cost.backwards) == (21, 20)
    folder, _ = evaluated(**words, budgets={"linf": [0.2]})
    found = [row["forwards"] for row in rows(folder, attack="pgd")]
    assert sum(found) / len(found) < 15


def test_the_forecast_names_every_cell_and_adds_up():
    words = {"attacks": {"pgd": {"steps": 7}, "fgsm": {}}, "threats": gray_box() | white_box("exact", "smoothed")}
    given = job(**words, defences=[defence("none"), defence("blur", Blur())])
    out = io.StringIO()
    minutes = forecast(given, Console(file=out, width=200))
    printed = out.getvalue()
    cells = plan(given).cells
    for cell in cells:
        (line,) = [line for line in printed.splitlines() if line.strip().startswith(cell.describe() + "  ")]
        cost = plan(given).costs.of(cell)
        assert line.split()[-3:-1] == [f"{cost.forwards:.4g}", f"{cost.backwards:.4g}"]
    assert "20 images, 3 chunks" in printed
    assert re.search(rf"{len(cells)} cells, at most about \d+\.\d minutes in one process", printed)
    assert 0 < minutes < 1
    given.config.trainer.devices = 4
    assert forecast(given, Console(file=out, width=200)) < minutes
    assert "minutes in 4 processes" in out.getvalue()


def test_the_forecast_of_a_command_starts_and_writes_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["images=20", "attack=[fgsm,ddn]", "adversarial=null", "budgets.linf=[8/255]", "classifier.weights=random"]
    given, messages = job_of(*words, "defence=[none]", "+defence.mine.purifier={name: bit_depth}", "plan=true")
    assert given.config.plan
    forecast(given)
    assert list(Path().iterdir()) == []
    printed = capsys.readouterr().out
    for word in ("gray_box none exact fgsm linf 8/255", "white_box mine learned fgsm", "ddn l2 smallest"):
        assert word in printed, printed
    assert "Nothing was started." in " ".join(printed.split())
    assert not [line for line in messages if "fitting" in line]
