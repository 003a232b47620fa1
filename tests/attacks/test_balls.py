"""Balls, boxes and projections: exact in float64, nearest where they say so, whatever the numbers."""

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2snet.attacks import Noise
from s2snet.attacks.balls import Ball, distance, unit

NORMS = ["linf", "l2", "l1"]
seeds = st.integers(0, 2**31)
radii = st.one_of(
    st.sampled_from([0.0, 8 / 255, 25.5 / 255, 1.0, 1e-9, 1e-3]), st.floats(0, 1, allow_nan=False, width=64)
)


def case(seed: int, reach: float, pixels: int = 24):
    """Images with pixels at 0, at 1, tiny and anywhere, and points `reach` around them."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(5, 2, pixels // 2, generator=draw)
    kind = torch.randint(4, images.shape, generator=draw)
    images = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.0, torch.where(kind == 2, images * 1e-6, images)))
    return images, images + reach * torch.randn(images.shape, generator=draw)


def lengths(points, images, norm):
    """Distances by numpy and by an exact sum: another order of adding than the code's."""
    delta = (points.double() - images.double()).flatten(1).numpy()
    order = {"linf": numpy.inf, "l2": 2, "l1": 1}[norm]
    result = [numpy.linalg.norm(row, order) for row in delta]
    if norm == "l1":
        result += [math.fsum(abs(row)) for row in delta]
    if norm == "l2":
        result += [math.sqrt(math.fsum(row**2)) for row in delta]
    return max(result)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=40, deadline=None)
@given(seed=seeds, eps=radii, reach=st.sampled_from([0.0, 1e-4, 0.03, 0.5, 30.0]))
def test_projections_end_inside_ball_and_box(norm, seed, eps, reach):
    images, points = case(seed, reach)
    projected = Ball(images, eps, norm).project(points)
    assert projected.dtype == torch.float32 and projected.shape == images.shape
    assert projected.min() >= 0 and projected.max() <= 1
    assert lengths(projected, images, norm) <= eps
    if eps == 0:
        assert torch.equal(projected, images)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, eps=st.sampled_from([8 / 255, 25.5 / 255, 0.1, 0.25, 0.5]))
def test_linf_bounds_are_the_last_float32_inside(seed, eps):
    """One number farther out is outside the ball or outside the box."""
    images, _ = case(seed, 0.0)
    for far in (-2.0, 2.0):
        bound = Ball(images, eps, "linf").project(torch.full_like(images, far))
        beyond = torch.nextafter(bound, torch.tensor(far))
        outside = (beyond.double() - images.double()).abs() > eps
        assert (outside | (beyond < 0) | (beyond > 1)).all()


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, eps=st.floats(0.01, 1))
def test_points_inside_stay_and_a_second_projection_changes_nothing(norm, seed, eps):
    images, points = case(seed, 1.0)
    ball = Ball(images, eps, norm)
    once = ball.project(points)
    assert ball.project(once).allclose(once, atol=1e-6)
    assert torch.equal(ball.project(images), images)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, eps=st.floats(0.05, 1))
def test_projections_use_the_radius_up(norm, seed, eps):
    """Far points land on the rim: a projection that shrinks more than it must weakens every attack."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(4, 60, generator=draw)
    points = images + 5 * torch.randn(images.shape, generator=draw)
    found = distance(Ball(images, 0.3 * eps, norm).project(points), images, norm)
    assert found.allclose(torch.full_like(found, 0.3 * eps), rtol=2e-5)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, eps=st.floats(0.05, 6), reach=st.sampled_from([0.1, 0.6, 3.0]))
def test_the_l1_projection_is_the_nearest_point(seed, eps, reach):
    images, points = case(seed, reach)
    found = Ball(images, eps, "l1").project(points).double().flatten(1)
    images, points = images.double().flatten(1), points.double().flatten(1)
    for image, point, ours in zip(images, points, found, strict=True):
        # the same point by another road: bisection over the shift of a soft threshold
        size, room = (point - image).abs(), torch.where(point > image, 1 - image, image)
        low, high = 0.0, float(size.max())
        if torch.minimum(size, room).sum() <= eps:
            high = 0.0
        for _ in range(100):
            middle = (low + high) / 2
            long = torch.minimum((size - middle).clamp(min=0), room).sum() > eps
            low, high = (middle, high) if long else (low, middle)
        want = image + (point - image).sign() * torch.minimum((size - high).clamp(min=0), room)
        assert (ours - want).abs().max() <= 2e-5


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**62), eps=st.sampled_from([8 / 255, 25.5 / 255, 1.0]))
def test_starts_lie_inside_and_belong_to_the_image(norm, seed, eps):
    images, _ = case(seed % 1000, 0.0)
    ball, everyone = Ball(images, eps, norm), torch.arange(5)
    starts = ball.start(Noise(seed), everyone, 0)
    assert lengths(starts, images, norm) <= eps and starts.min() >= 0 and starts.max() <= 1
    some = torch.tensor([3, 1])
    assert torch.equal(ball.rows(some).start(Noise(seed), some, 0), starts[some])
    assert not torch.equal(ball.start(Noise(seed), everyone, 1), starts)
    assert not torch.equal(ball.start(Noise(seed + 1), everyone, 0), starts)


@pytest.mark.parametrize(
    ("norm", "inner", "pixels", "power"),
    [("linf", False, 1, 1), ("l2", False, 3, 3), ("l2", True, 3, 1), ("l1", False, 3, 3)],
)
def test_starts_are_uniform_in_the_ball_or_in_length(norm, inner, pixels, power):
    """The share of starts within half the radius is a half to the dimension (one pixel of three for linf)."""
    images = torch.full((4000, 3), 0.5)
    starts = Ball(images, 0.4, norm).start(Noise(1), torch.arange(4000), 0, inner)
    share = (distance(starts[:, :pixels], images[:, :pixels], norm) < 0.2).double().mean().item()
    sigma = (0.5**power * (1 - 0.5**power) / 4000) ** 0.5
    assert abs(share - 0.5**power) < 4 * sigma
    assert (starts - 0.5).mean(dim=0).abs().max() < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_directions_have_length_one_and_point_uphill(norm):
    draw = torch.Generator().manual_seed(0)
    gradient = torch.randn(6, 3, 20, generator=draw) * torch.logspace(-38, 30, 6)[:, None, None]
    images = torch.full_like(gradient, 0.5)
    step = Ball(images, 0.1, norm).steepest(gradient, images)
    assert distance(step, torch.zeros_like(step), norm).allclose(torch.ones(6).double(), rtol=1e-5)
    assert ((step * gradient.sign()) >= 0).all()
    assert not Ball(images, 0.1, norm).steepest(torch.zeros_like(gradient), images).any()


def test_l1_steps_take_the_largest_free_coordinates():
    images = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.5]])
    gradient = torch.tensor([[-9.0, 8.0, -3.0, 2.0, 1.0]])
    ball = Ball(images, 1.0, "l1", sparsity=0.4)
    assert ball.steepest(gradient, images).tolist() == [[0, 0, -0.5, 0.5, 0]]
    assert ball.steepest(-gradient, images).tolist() == [[0.5, -0.5, 0, 0, 0]]


def test_unit_vectors_of_tiny_and_huge_ones():
    vectors = torch.tensor([[3e-38, 4e-38], [3e30, -4e30], [0, 0], [1e-44, 0]])
    assert unit(vectors).allclose(torch.tensor([[0.6, 0.8], [0.6, -0.8], [0, 0], [1, 0]]), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_empty_batches_and_images_without_pixels(norm):
    for shape in ((0, 3, 4), (2, 0)):
        images = torch.zeros(shape)
        ball = Ball(images, 0.1, norm)
        rows = torch.arange(shape[0])
        if shape[1]:
            assert ball.project(ball.start(Noise(), rows, 0)).shape == images.shape
            assert ball.steepest(images, images).shape == images.shape
        assert distance(images, images, norm).tolist() == [0.0] * shape[0]


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm='l0': allowed are linf, l2, l1"):
        Ball(torch.zeros(1, 2), 0.1, "l0")
