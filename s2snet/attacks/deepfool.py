"""DeepFool: steps to the linearised model's nearest boundary (Moosavi-Dezfooli et al.: arXiv 1511.04599)."""

from collections.abc import Callable

import torch
from torch import Tensor

from s2snet.attacks._guard import check, untouched
from s2snet.attacks.balls import spread, unit
from s2snet.attacks.closest import Closest, dual_length
from s2snet.attacks.gradients import Passes, Prober
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
    """Images just beyond the boundary that linearised steps found; the clean one where they found none.

    Each step goes to the linearised boundary of one of `candidates` other classes (those ranked highest on
    the clean image), the one that is nearest inside [0, 1], and `overshoot` of its way further; the overshoot
    is taken back at the end by `bisections`. With `targets` it is the boundary between that class and the one
    now predicted, as in arXiv 1807.04200.

    `subspace` [pixels, d], orthonormal columns, l2 only, confines the perturbation to their span (same
    paper): gradients are projected on it. Cutting at 0 and 1 would leave the span, so a confined image that
    fools outside the box fails; with box=False it comes back as it is, outside [0, 1], for studies of
    geometry. Logits and gradients are means over `draws`. Not random; `leave_early` changes nothing. Costs
    draws x (per step 1 forward and `candidates` backwards, 1 with targets; bisections + 2 forwards).
    """
    check(images, labels, targets, norm, deepfool.norms, steps=steps, candidates=candidates, draws=draws)
    _check_subspace(subspace, images, norm, box)
    noise = Noise() if noise is None else noise
    del leave_early
    with untouched(model, noise.seed):
        images = images.detach().clone()
        prober = Prober(model, labels, targets, "margin", draws, passes)
        closest = Closest(images, prober, norm)
        rows = closest.rows
        if not len(rows):
            return images
        span = None if subspace is None else subspace.detach().to(images)
        confined = span is not None
        ranked = prober.logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        others = ranked[:, : min(candidates, ranked.shape[1] - 1)]
        x, before = images[rows], images.clone()
        for step in range(steps + 1):
            prober.logits, gains, slopes = 0, 0, 0
            for _ in range(draws):
                x = x.detach().requires_grad_(step < steps)
                logits = prober.answer(x, rows)
                prober.logits = prober.logits + logits.detach() / draws
                if step == steps or (draws == 1 and closest.fools(rows).all()):
                    continue  # nobody needs a gradient
                # what each boundary lacks to be crossed, and the gradient of that
                if targets is None:
                    wanted, present = others[rows], labels[rows][:, None]
                else:
                    wanted = targets[rows][:, None]
                    present = logits.detach().scatter(1, wanted, -torch.inf).argmax(dim=1, keepdim=True)
                gain = logits.gather(1, wanted) - logits.gather(1, present)
                gains = gains + gain.detach() / draws
                # all images go back together; those that fool already are dropped after it
                slope = [
                    prober.backward(column, x, rows, keep_graph=k + 1 < gain.shape[1]).flatten(1) / draws
                    for k, column in enumerate(gain.unbind(dim=1))
                ]
                slopes = torch.stack(slope, dim=1).add_(slopes)
            fools = closest.fools(rows)
            point = _into_box(x.detach()) if confined and box else x.detach()
            closest.see(rows, point, fools & point.flatten(1).isfinite().all(dim=1))
            if step == steps or fools.all():
                break
            if confined:
                slopes = (slopes.double() @ span.double() @ span.double().T).to(slopes.dtype)
            stay = ~fools
            rows, x, slopes = rows[stay], x.detach()[stay], slopes[stay]
            # a hair beyond the boundary and float32's noise: a step of 1.02 times nothing would stay on it
            hair = 2 * closest.noise[rows][:, None]
            lack = (1 + overshoot) * -gains[stay].to(x.dtype) + hair
            # the class whose boundary is nearest inside the box, then the paper's step to it, cut to the box
            free = lack / dual_length(slopes.flatten(0, 1), norm).view_as(lack).clamp(min=1e-30)
            if confined:
                length = free
            else:  # class by class: it takes several times the memory of a gradient
                pairs = zip(slopes.split(1, dim=1), lack.split(1, dim=1), strict=True)
                length = torch.cat([_reach(slope, need, x.flatten(1), norm) for slope, need in pairs], dim=1)
            chosen = length.argmin(dim=1, keepdim=True)
            slope = slopes.gather(1, chosen[:, :, None].expand(-1, 1, slopes.shape[2])).view_as(x)
            direction = unit(slope) if norm == "l2" else slope.sign()
            before[rows] = x
            x = x + spread(free.gather(1, chosen).squeeze(1), x) * direction
            x = x if confined else x.clamp(0, 1)
        return closest.finish(bisections, None if confined else before, box)


def _reach(slopes: Tensor, lack: Tensor, x: Tensor, norm: str) -> Tensor:
    """The length [b, m] of the shortest move inside the box that gains `lack` along each slope [b, m, n].

    A move is min(t |slope|, room) in l2, min(t, room) in linf, for the one t that gains what lacks. Starting
    without walls, t grows as pixels hit them; each round is exact for the walls known so far. Boundaries that
    no move inside the box reaches are at 1e6 and more, in their order without the box.
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
    """x, rounding beyond the box taken off; NaN for images that are outside by more than rounding."""
    outside = (x < -1e-6) | (x > 1 + 1e-6)
    return x.clamp(0, 1).masked_fill(outside, torch.nan)


def _check_subspace(subspace: Tensor | None, images: Tensor, norm: str, box: bool) -> None:
    if subspace is None:
        if not box:
            raise ValueError("box=False goes with a subspace: without one images stay in [0, 1]")
        return
    pixels = images[:1].numel() if len(images) else subspace.shape[0]
    if norm != "l2" or subspace.dim() != 2 or subspace.shape[0] != pixels:
        raise ValueError(f"subspace {tuple(subspace.shape)} with norm={norm!r}: it is [{pixels}, d], and the norm l2")
    columns = subspace.detach().double()
    if not torch.allclose(columns.T @ columns, torch.eye(columns.shape[1]).to(columns), atol=1e-4):
        raise ValueError("subspace: its columns are not orthonormal (torch.linalg.qr makes them so)")


deepfool.version, deepfool.norms, deepfool.minimal = 1, ("l2", "linf"), True
