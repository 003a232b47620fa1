"""Implement DeepFool: step to the linearised model's nearest boundary (Moosavi-Dezfooli et al., arXiv 1511.04599)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.gradients import Objective, Passes
from s2snet.attacks.nearest import NearestFooling, dual_norm
from s2snet.attacks.noise import Noise


def deepfool(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 9,
    bisections: int = 12,
    subspace: Tensor | None = None,
    box: bool = True,
    draws: int = 1,
    noise: Noise | None = None,
    targets: Tensor | None = None,
    leave_early: bool = False,
    passes: Passes | None = None,
) -> Tensor:
    """Return images just beyond the nearest boundary found by linearised steps, or the clean image.

    Each step moves to the linearised boundary that is nearest inside [0, 1]. With `targets`, that is the boundary
    between the target and the currently predicted class, as in arXiv 1807.04200. The arguments shared by all attacks
    are described in `s2snet.attacks`; `leave_early` has no effect.

    Args:
        steps: Maximum number of steps.
        overshoot: Fraction of its length by which each step goes beyond the boundary; undone at the end by
            `bisections`.
        candidates: Number of other classes considered, those ranked highest on the clean image.
        bisections: Number of halvings of the final line search back to the previous iterate.
        subspace: Orthonormal columns [pixels, d] whose span contains the perturbation (arXiv 1807.04200); l2 only.
            Gradients are projected onto it. Clipping would leave the span, so a confined image that fools only outside
            [0, 1] counts as a failure.
        box: If False, which requires a subspace, return such images as they are, outside [0, 1].

    Cost: draws x (1 forward and `candidates` backwards per step, 1 backward with targets; bisections + 2 forwards).
    Not random.
    """
    check(images, labels, targets, norm, deepfool.norms, steps=steps, candidates=candidates, draws=draws)
    _check_subspace(subspace, images, norm, box)
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        objective = Objective(model, labels, targets, "margin", draws, passes)
        nearest = NearestFooling(images, objective, norm)
        rows = nearest.rows
        if not len(rows):
            return images
        span = None if subspace is None else subspace.detach().to(images)
        confined = span is not None
        ranked = objective.logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        others = ranked[:, : min(candidates, ranked.shape[1] - 1)]
        x, before = images[rows], images.clone()
        for step in range(steps + 1):
            objective.logits, gains, slopes = 0, 0, 0
            for _ in range(draws):
                x = x.detach().requires_grad_(step < steps)
                logits = objective.forward(x, rows)
                objective.logits = objective.logits + logits.detach() / draws
                if step == steps or (draws == 1 and nearest.fools(rows).all()):
                    continue  # no gradient needed
                # logit difference across each boundary, negative before it is crossed, and its gradient
                if targets is None:
                    new_class, old_class = others[rows], labels[rows][:, None]
                else:
                    new_class = targets[rows][:, None]
                    old_class = logits.detach().scatter(1, new_class, -torch.inf).argmax(dim=1, keepdim=True)
                gain = logits.gather(1, new_class) - logits.gather(1, old_class)
                gains = gains + gain.detach() / draws
                # one backward for all images; those that fool already are dropped afterwards
                slope = [
                    objective.backward(column, x, rows, keep_graph=k + 1 < gain.shape[1]).flatten(1) / draws
                    for k, column in enumerate(gain.unbind(dim=1))
                ]
                slopes = torch.stack(slope, dim=1).add_(slopes)
            fools = nearest.fools(rows)
            point = _into_box(x.detach()) if confined and box else x.detach()
            nearest.update(rows, point, fools & point.flatten(1).isfinite().all(dim=1))
            if step == steps or fools.all():
                break
            if confined:
                slopes = (slopes.double() @ span.double() @ span.double().T).to(slopes.dtype)
            stay = ~fools
            rows, x, slopes = rows[stay], x.detach()[stay], slopes[stay]
            # aim slightly beyond the boundary and float32's rounding: 1.02 times a tiny step would not cross it
            clearance = 2 * nearest.rounding[rows][:, None]
            lack = (1 + overshoot) * -gains[stay].to(x.dtype) + clearance
            # choose the class whose boundary is nearest inside the box, then take the paper's step, clipped to the box
            free = lack / dual_norm(slopes.flatten(0, 1), norm).view_as(lack).clamp(min=1e-30)
            if confined:
                length = free
            else:  # one class at a time: needs several times the memory of a gradient
                pairs = zip(slopes.split(1, dim=1), lack.split(1, dim=1), strict=True)
                length = torch.cat([_reach(slope, need, x.flatten(1), norm) for slope, need in pairs], dim=1)
            chosen = length.argmin(dim=1, keepdim=True)
            slope = slopes.gather(1, chosen[:, :, None].expand(-1, 1, slopes.shape[2])).view_as(x)
            direction = unit(slope) if norm == "l2" else slope.sign()
            before[rows] = x
            x = x + spread(free.gather(1, chosen).squeeze(1), x) * direction
            x = x if confined else x.clamp(0, 1)
        return nearest.refine(bisections, None if confined else before, box)


def _reach(slopes: Tensor, lack: Tensor, x: Tensor, norm: str) -> Tensor:
    """Return the length [b, m] of the shortest move inside the box that gains `lack` along each slope [b, m, n].

    The move is min(t |slope|, room) in l2 and min(t, room) in linf, with the t that gains exactly `lack`. Starting
    without the box, t grows as pixels reach its faces; each round is exact for the faces reached so far. Boundaries
    that no move inside the box reaches get lengths of at least 1e6, ordered as without the box.
    """
    size = slopes.abs()
    room = torch.where(slopes > 0, 1 - x[:, None], x[:, None])
    pull = size if norm == "l2" else (size > 0).to(size)
    stuck, t = torch.zeros_like(size, dtype=torch.bool), torch.zeros_like(lack)
    for _ in range(30):
        gained = torch.where(stuck, size * room, 0).sum(dim=2)
        strength = torch.where(stuck, 0, size * pull).sum(dim=2)
        t = torch.where(strength > 0, ((lack - gained) / strength.clamp(min=1e-30)).clamp(min=0), t)
        hits = t[:, :, None] * pull >= room
        if not (hits & ~stuck).any():
            break
        stuck = stuck | hits
    move = torch.minimum(t[:, :, None] * pull, room)
    length = move.norm(dim=2) if norm == "l2" else move.amax(dim=2)
    reached = (size.double() * move.double()).sum(dim=2) >= 0.99 * lack
    return torch.where(reached, length, 1e6 * (1 + lack / (size * pull).sum(dim=2).clamp(min=1e-30)))


def _into_box(x: Tensor) -> Tensor:
    """Clip rounding errors beyond the box. Images further outside become NaN."""
    outside = (x < -1e-6) | (x > 1 + 1e-6)
    return x.clamp(0, 1).masked_fill(outside, torch.nan)


def _check_subspace(subspace: Tensor | None, images: Tensor, norm: str, box: bool) -> None:
    if subspace is None:
        if not box:
            raise ValueError("box=False requires a subspace")
        return
    pixels = images[:1].numel() if len(images) else subspace.shape[0]
    if norm != "l2" or subspace.dim() != 2 or subspace.shape[0] != pixels:
        raise ValueError(
            f"subspace: expected shape [{pixels}, d] and norm l2, got {list(subspace.shape)} and norm {norm}"
        )
    columns = subspace.detach().double()
    if not torch.allclose(columns.T @ columns, torch.eye(columns.shape[1]).to(columns), atol=1e-4):
        raise ValueError("subspace: columns are not orthonormal; orthonormalise them, e.g. with torch.linalg.qr")


deepfool.version, deepfool.norms, deepfool.minimal = 1, ("l2", "linf"), True
