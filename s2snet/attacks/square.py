"""Implement the Square attack: a gradient-free random search over squares at the corners of the ball.

Andriushchenko et al., ECCV 2020 (arXiv 1912.00049), the Linf version (algorithms 1 and 2).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import Ball
from s2snet.attacks.gradients import Best, Objective, Passes
from s2snet.attacks.noise import Noise

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # steps, of 10,000, after which the area of a square halves
BLOCK = 256  # steps per draw of random numbers: a generator per image and step would cost more than a forward pass


def square(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 1000,
    restarts: int = 1,
    area: float = 0.8,
    loss: str = "margin",
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return the best proposal: random stripes first, then random squares that change by up to 2 eps.

    Needs no gradients: `loss` only ranks the proposals. Images without a height are treated as one row. The arguments
    shared by all attacks are described in `s2snet.attacks`.

    Args:
        steps: Number of proposed squares per run.
        restarts: Number of runs. Stripes and squares are drawn from `noise`.
        area: Fraction of the pixels covered by the first squares; it halves on the paper's schedule, rescaled to
            `steps`.

    Cost: restarts x draws x (steps + 1) forwards, no backwards; less if images leave early.
    """
    check(images, labels, targets, norm, square.norms, eps, steps=steps, restarts=restarts, draws=draws)
    if not 0 < area <= 1:
        raise ValueError(f"area={area}: must be above 0 and at most 1")
    noise = Noise() if noise is None else noise
    with untouched(model, noise.seed), torch.no_grad():
        images = images.detach().clone()
        ball = Ball(images, eps, norm)
        best = Best(images)
        objective = Objective(model, labels, targets, loss, draws, passes)
        canvas = (
            images.shape if images.dim() == 4 else (len(images), 1, *((1,) * (3 - images.dim())), *images.shape[1:])
        )
        channels, height, width = canvas[1:]
        for restart in range(restarts):
            rows = torch.nonzero(~best.fools if leave_early else torch.ones_like(best.fools)).squeeze(1)
            stripes = noise.uniform(images.new_empty(len(rows), channels, 1, width), rows, restart)
            x = _moved(images[rows], ball.rows(rows), torch.where(stripes < 0.5, -eps, eps), canvas)
            fools, value = objective.evaluate(x, rows) if len(rows) else (best.fools[rows], best.loss[rows])
            best.update(rows, x, fools, value)
            for step in range(steps):
                if leave_early:
                    stay = ~fools
                    rows, x, fools, value = rows[stay], x[stay], fools[stay], value[stay]
                if not len(rows):
                    break
                if step % BLOCK == 0:
                    like = images.new_empty(len(images), BLOCK, 2 + channels)
                    block = like.zero_().index_copy(
                        0, rows, noise.uniform(like[rows], rows, restart, 1 + step // BLOCK)
                    )
                drawn = block[rows, step % BLOCK]
                side = _side(step, steps, area, height, width)
                tall, wide = min(side, height), min(side, width)
                top = (drawn[:, 0] * (height - tall + 1)).long().clamp(max=height - tall)
                left = (drawn[:, 1] * (width - wide + 1)).long().clamp(max=width - wide)
                inside = _window(top, tall, height)[:, :, None] & _window(left, wide, width)[:, None, :]
                shift = torch.where(drawn[:, 2:] < 0.5, -2 * eps, 2 * eps)[:, :, None, None] * inside[:, None]
                proposed = _moved(x, ball.rows(rows), shift, canvas)
                now_fools, now = objective.evaluate(proposed, rows)
                best.update(rows, proposed, now_fools, now)
                better = (now > value) | (now_fools & ~fools)
                x[better], value[better], fools[better] = proposed[better], now[better], now_fools[better]
        return best.images


def _moved(x: Tensor, ball: Ball, shift: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """Return x [b, ...] shifted on the canvas [b, C, H, W] and projected onto the ball."""
    moved = x.reshape(len(x), *canvas[1:]) + shift
    return ball.project(moved.reshape(x.shape))


def _window(start: Tensor, length: int, size: int) -> Tensor:
    """Return a bool mask [b, size] of `length` positions beginning at `start`."""
    places = torch.arange(size, device=start.device)[None]
    return (places >= start[:, None]) & (places < start[:, None] + length)


def _side(step: int, steps: int, area: float, height: int, width: int) -> int:
    """Return the side of a square at this step; its area halves at HALVINGS."""
    halvings = sum(10_000 * step / steps > at for at in HALVINGS)
    return max(1, round((area / 2**halvings * height * width) ** 0.5))


square.version, square.norms, square.minimal = 1, ("linf",), False
square.answers_only, square.random = True, True
