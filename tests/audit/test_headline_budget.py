"""One function chooses the budget that the page's first sentence, the audit and the probes refer to."""

import math

import pytest
from handmade import EPS, attacked
from records import RIGHT, answer, folder, turned

from s2snet.audit.probes.measure import radius
from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline_budget
from s2snet.report.verdict import sentences

WITHOUT_USUAL = {"l1": [1.0], "linf": [0.3, 0.1, 0.2], "l2": [0.5]}


def pairs(budgets: dict) -> list[tuple[str, float]]:
    return [(norm, eps) for norm, radii in budgets.items() for eps in radii]


@pytest.mark.parametrize(
    ("budgets", "chosen"),
    [
        ({"l1": [1.0], "linf": [2 / 255, 8 / 255, 16 / 255], "l2": [0.5]}, ("linf", 8 / 255)),
        ({"linf": [0.1, 0.2, 8 / 255]}, ("linf", 8 / 255)),
        ({"l2": [8 / 255, 0.5, 1.0]}, ("l2", 0.5)),  # 8/255 is the usual radius of linf only
        (WITHOUT_USUAL, ("linf", 0.2)),
        ({"linf": [0.1, 0.2]}, ("linf", 0.2)),
        ({"linf": [0.0, 0.1, math.inf]}, ("linf", 0.1)),
        ({"linf": [0.0], "l2": [0.5]}, ("l2", 0.5)),
        ({"l2": [0.5, 1.0, 2.0]}, ("l2", 1.0)),
        ({"l2": [0.5], "l1": [2.0]}, ("l1", 2.0)),
        ({"linf": [0.0]}, None),
        ({}, None),
    ],
)
def test_the_headline_budget(budgets, chosen):
    assert headline_budget(pairs(budgets)) == chosen
    assert headline_budget(reversed(pairs(budgets))) == chosen


@pytest.mark.parametrize(
    ("budgets", "eps"),
    [
        ({"linf": [2 / 255, 8 / 255], "l2": [0.5]}, 8 / 255),
        (WITHOUT_USUAL, 0.2),
        ({"l2": [0.5]}, 8 / 255),  # an l2 radius is none of linf
        ({"linf": [0.0]}, 8 / 255),
        ({}, 8 / 255),
    ],
)
def test_probes_use_it_if_it_is_linf(budgets, eps):
    assert radius(budgets) == eps


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        (WITHOUT_USUAL, "At L\u221e\u00a051/255, none keeps 50.0\u00a0% in the worst case."),
        ({"l2": [0.5, 1.0]}, "At L\u2082\u00a01, none keeps 50.0\u00a0% in the worst case."),
        ({}, "Nothing was attacked: there is no worst case to report."),
    ],
)
def test_the_page_speaks_of_it(budgets, sentence):
    line = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "status": "done"}
    headlines = {("none", WORST_CASE, norm, eps): line for norm, eps in pairs(budgets)}
    headlines["none", CLEAN, "", 0.0] = line
    assert sentences(headlines, [{"name": "none", "title": "none"}]) == [sentence]


@pytest.mark.parametrize(("radii", "chosen"), [((0.1, 0.2, 0.3), "0.2"), ((0.1, EPS, 0.3), f"{EPS:.4g}")])
def test_the_audit_compares_with_the_control_there(radii, chosen):
    cells = [
        attacked(RIGHT if name == "s2snet" else turned(100), f"{name} {eps}", defence=name, budget=eps)
        for name in ("s2snet", "autoencoder")
        for eps in radii
    ]
    evidence = answer("controls", folder(*cells), "s2snet").evidence
    assert evidence == f"linf {chosen}: 100.0%, the stage-1 autoencoder 50.0%"
