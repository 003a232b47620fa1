"""Auto-PGD step by step: the points it asks about against the paper's algorithm 1, written out for one pixel."""

import pytest
import torch
from linear_models import problem

from s2snet.attacks import apgd
from s2snet.attacks.apgd import _checkpoints

EPS, START = 0.1, 0.5


def algorithm_1(f, slope, checkpoints, steps):
    """The points x(0) .. x(steps) for one pixel: arXiv 2003.01690, section 3.2."""

    def project(x):
        return min(max(x, START - EPS), START + EPS)

    size, points, values = 2 * EPS, [START], [f(START)]
    x = before = best = START
    marks, reduced, bests = [0, *checkpoints], {0: True}, {0: None}
    for k in range(steps):
        if k in checkpoints:
            last = marks[marks.index(k) - 1]
            rose = sum(values[i + 1] > values[i] for i in range(last, k))
            reduced[k] = rose < 0.75 * (k - last) or (not reduced[last] and bests[last] == f(best))
            bests[k] = f(best)
            if reduced[k]:
                size, x, values[k] = size / 2, best, f(best)
        stepped = project(x + size * ((slope(x) > 0) - (slope(x) < 0)))
        share = 0.75 if k else 1.0
        x, before = project(x + share * (stepped - x) + (1 - share) * (x - before)), x
        points.append(x)
        values.append(f(x))
        best = x if f(x) > f(best) else best
    return points


@pytest.mark.parametrize("centre", [0.53, 0.471, 0.5009, 0.58, 0.7])
@pytest.mark.parametrize("steps", [20, 100])
def test_every_point_is_the_papers(centre, steps):
    """f has its top at `centre`, inside the ball or beyond it: steps rise, jump over, halve and come back."""
    seen = []

    def model(x):
        seen.append(float(x.detach().double()))
        other = -((x - centre) ** 2).sum(dim=1) - 1
        return torch.stack([torch.zeros_like(other), other], dim=1)

    image = torch.full((1, 1), START, dtype=torch.float64)
    label = torch.zeros(1, dtype=torch.int64)
    apgd(model, image, label, eps=EPS, steps=steps, loss="margin", random_start=False)
    want = algorithm_1(lambda x: -((x - centre) ** 2), lambda x: 2 * (centre - x), list(_checkpoints(steps)), steps)
    assert len(seen) == steps + 1
    assert seen == pytest.approx(want, abs=1e-9)


def test_a_run_that_rises_below_its_best_goes_back_to_it():
    """Condition 2: the first point was the best by far, all later ones rise steadily and never reach it."""
    seen, values = [], [100.0, *(k / 1000 for k in range(1, 101))]

    def model(x):
        seen.append(float(x.detach()))
        other = x.sum(dim=1) - x.detach().sum(dim=1) + values[len(seen) - 1] - 1000
        return torch.stack([torch.zeros_like(other), other], dim=1)

    image = torch.full((1, 1), START, dtype=torch.float64)
    apgd(model, image, torch.zeros(1, dtype=torch.int64), eps=EPS, loss="margin", random_start=False)
    assert seen[1:42] == pytest.approx([START + EPS] * 41)  # up to the second checkpoint, where it goes back:
    assert seen[42] == pytest.approx(START + 0.75 * EPS - 0.25 * EPS)


def test_checkpoints_are_the_papers():
    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert _checkpoints(100)[57] == 41 and _checkpoints(100)[22] == 0
    assert list(_checkpoints(1000))[:3] == [220, 410, 570]


def test_runs_go_to_the_classes_ranked_highest():
    """Class 3 is the nearest to fool but ranked last: one run to the top class misses it, three find it."""
    model, images, _ = problem(4, 9, count=1)
    model.weights.data = torch.diag(torch.tensor([0.0, 0.5, 0.4, 40.0])) @ torch.eye(4, 9)
    model.bias.data = torch.tensor([0.0, -0.6, -0.7, -22.0])
    images, label = torch.full((1, 9), 0.5), torch.tensor([0])
    wanted = {"eps": 0.06, "steps": 20, "random_start": False, "loss": "margin"}
    one, three = (apgd(model, images, label, target_classes=n, **wanted) for n in (1, 3))
    assert model(images).argsort(descending=True)[0].tolist() == [0, 1, 2, 3]
    assert model(one).argmax() == 0 and model(three).argmax() == 3


def test_target_classes_and_targets_exclude_each_other():
    model, images, labels = problem(3, 9, count=2)
    with pytest.raises(ValueError, match="target_classes=2: must be 0 if targets are given"):
        apgd(model, images, labels, eps=0.1, target_classes=2, targets=labels)
    with pytest.raises(ValueError, match="target_classes=-1"):
        apgd(model, images, labels, eps=0.1, target_classes=-1)
