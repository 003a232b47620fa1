"""The parts of attacks: gradients of the input and the best iterate."""

import pytest
import torch
from linear_models import problem

from s2snet.attacks import Passes
from s2snet.attacks.gradients import Best, Objective


def test_the_best_iterate_is_a_fooling_one_then_the_one_of_highest_loss():
    best = Best(torch.zeros(2, 1))
    rows = torch.arange(2)

    def see(value, fools, loss):
        best.update(rows, torch.full((2, 1), value), torch.tensor(fools), torch.tensor(loss))
        return best.images.flatten().tolist()

    assert see(1.0, [False, False], [5.0, -5.0]) == [1, 1]
    assert see(2.0, [False, False], [4.0, -4.0]) == [1, 2]
    assert see(3.0, [True, False], [0.0, -9.0]) == [3, 2]  # fooling counts more than loss
    assert see(4.0, [False, False], [99.0, -4.0]) == [3, 2]  # a tie keeps the first
    assert see(5.0, [True, True], [1.0, -99.0]) == [5, 5]
    assert see(6.0, [True, True], [torch.nan, -torch.inf]) == [6, 5]  # no answer is the worst answer
    assert best.fools.all()


def test_the_best_iterate_of_some_rows_leaves_the_others():
    best = Best(torch.zeros(3, 1))
    best.update(torch.tensor([2, 0]), torch.tensor([[7.0], [8.0]]), torch.tensor([True, False]), torch.zeros(2))
    assert best.images.flatten().tolist() == [8, 0, 7] and best.fools.tolist() == [False, False, True]


def test_a_gradient_is_the_mean_over_draws_and_counts_them():
    model, images, labels = problem(3, 9, count=4)
    passes = Passes(4)
    factors = iter([1.0, 2.0, 6.0])
    objective = Objective(lambda x: model(x) * next(factors), labels, None, "margin", draws=3, passes=passes)
    rows = torch.tensor([3, 1])
    fools, value, gradient = objective.gradient(images[rows], rows)
    plain = Objective(model, labels, None, "margin")
    _, one, slope = plain.gradient(images[rows], rows)
    assert value.allclose(3 * one) and gradient.allclose(3 * slope) and not fools.any()
    assert objective.logits.allclose(3 * model(images[rows]), atol=1e-5)
    assert passes.forwards.tolist() == passes.backwards.tolist() == [0, 3, 0, 3]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_no_number_is_zero_there(bad):
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient.index_fill(1, torch.tensor([2]), bad)

    model, images, labels = problem(2, 5, count=3)
    _, _, gradient = Objective(lambda x: model(Spoil.apply(x)), labels, None, "margin").gradient(
        images, torch.arange(3)
    )
    assert gradient[:, 2].tolist() == [0, 0, 0] and (gradient[:, [0, 1, 3, 4]] != 0).all()
