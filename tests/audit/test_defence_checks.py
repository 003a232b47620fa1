"""Checks of the defence, on measurements written by hand and on small modules that are measured."""

import pytest
import torch
from handmade import attacked
from jobs import Blur, defence, white_box
from records import RIGHT, answer, folder, measured
from torch import Tensor, nn

from s2snet.audit.checks import findings
from s2snet.audit.probes.gradients import jumps_of

FINE = {
    "randomness": {"logits": 0.0, "gradients": 0.0},
    "gradients": {"zero": 0.0},
    "inner": {"autograd_calls": 0, "called_again": []},
}


@pytest.mark.parametrize(
    ("changed", "evidence"),
    [
        ({}, "admitted"),
        ({"randomness": {"logits": 0.1, "gradients": 0.1}}, "random answers"),
        ({"gradients": {"zero": 0.1}}, "zero gradients"),
        ({"inner": {"autograd_calls": 1, "called_again": []}}, "optimises in its forward pass"),
    ],
)
def test_admission_names_the_broken_rule(changed, evidence):
    found = answer("admission", folder(attacked(RIGHT, "a"), probes=FINE | changed))
    assert (found.evidence, found.verdict) == (evidence, "warn" if changed else "pass")


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "pass"), (0.8, "pass"), (0.5, "warn")])
def test_a_surrogate_that_leads_nowhere(share, verdict):
    found = {"exact": {"share": 1.0, "images": 16}, "identity": {"share": share, "images": 16}}
    here = folder(attacked(RIGHT, "a"), probes={"ascent": found, "moved": {"median": 0.3}})
    assert answer("surrogate_valid", here).verdict == verdict


def test_a_probe_that_raised_is_not_a_pass():
    here = folder(attacked(RIGHT, "a"), probes={"jumps": {"error": "RuntimeError: no float64"}})
    assert answer("jumps", here).verdict == "not applicable"


class Descending(nn.Module):
    """A purifier that computes gradients in its forward pass."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            x = images if images.requires_grad else images.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return images - 0.01 * slope


class Twice(nn.Module):
    """A purifier that runs one layer twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.layer.weight, 1.0)
        nn.init.zeros_(self.layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.layer(images))


class Steps(nn.Module):
    """A purifier that rounds, with the gradient of the identity."""

    def forward(self, images: Tensor) -> Tensor:
        return images + ((images * 7).round() / 7 - images).detach()


def test_measured_of_small_purifiers():
    purifiers = {"blur": Blur(), "descending": Descending(), "twice": Twice(), "steps": Steps()}
    defences = [defence(name, purifier) for name, purifier in purifiers.items()]
    here = measured(defences=defences, threats=white_box(), attacks={"fgsm": {}})
    found = {(finding.defence, finding.check): finding for finding in findings(here)}
    assert [found[name, "inner_optimisation"].verdict for name in purifiers] == ["pass", "fail", "warn", "pass"]
    assert [found[name, "jumps"].verdict for name in purifiers] == ["pass", "pass", "pass", "fail"]
    assert [found[name, "finite_differences"].verdict for name in purifiers] == ["pass", "pass", "pass", "fail"]
    assert {found["steps", check].part for check in ("jumps", "finite_differences")} == {"purifier"}


def test_kinks_are_no_jumps():
    """However steep it is, a continuous function changes by the sum of its gradients along a path."""

    def share(function) -> float:
        start = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        way = 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1)).sign()
        return jumps_of(lambda x: function(x).flatten(1).sum(dim=1), start, way)["median"]

    assert share(lambda x: 3 * x) < 1e-3
    assert share(lambda x: 100 * (x - 0.5).relu()) < 0.2
    assert share(lambda x: x + (x > 0.5).float()) > 0.8
    assert share(lambda x: x.detach() * 1.0 + 0 * x) > 0.999
