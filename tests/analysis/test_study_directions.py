"""study=directions: closed forms on quadratic and linear models, controls, and a run on a tiny network."""

import json

import numpy as np
import pytest
import torch
from benches import bench, splits
from torch import nn

from s2snet.analysis.directions.measures import (
    MeanHessian,
    attack_directions,
    confined_lengths,
    eigenpairs,
    interleave,
    orthonormal,
    projection,
    random_basis,
    reach_class,
    select_pairs,
    share_within,
    step_length,
    traced_logits,
    universal_perturbation,
)
from s2snet.analysis.directions.study import run
from s2snet.report.studies.page import write_analysis
from s2snet.store import weights

VALUES = [5.0, 3.0, 0.5, 0.0, -2.0, -4.0]  # of the Hessian, besides zeros
SIDE = 6


class Quadratic(nn.Module):
    """F_0 = b.x, F_1 = x'Ax / 2 with known eigenpairs of A, on images of SIDE x SIDE."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.vectors = torch.linalg.qr(torch.randn(SIDE**2, len(VALUES), generator=draw))[0]
        self.slope = torch.randn(SIDE**2, generator=draw)

    def forward(self, images):
        x = images.flatten(1)
        curved = ((x @ self.vectors) ** 2 * torch.tensor(VALUES)).sum(dim=1) / 2
        return torch.stack([x @ self.slope, curved], dim=1)


class Linear(nn.Module):
    """Logits W x + b."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.bias


def linear(classes: int = 3, pixels: int = SIDE**2) -> Linear:
    draw = torch.Generator().manual_seed(1)
    return Linear(torch.randn(classes, pixels, generator=draw), 0.1 * torch.randn(classes, generator=draw))


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def zeros(count: int = 8) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize("h", [0.1, 1.0])
def test_a_quadratics_directions_and_eigenvalues_are_found_to_a_percent(h):
    model = Quadratic()
    actual = eigenpairs(MeanHessian(model, images(), zeros(), 1, h), k=4, tol=1e-5)
    wanted = torch.tensor([5.0, 3.0, -2.0, -4.0])
    for name in ("curvature", "eigenvalues"):
        torch.testing.assert_close(actual[name].float(), wanted, rtol=0.01, atol=0)
    known = model.vectors[:, [VALUES.index(float(value)) for value in wanted]]
    assert ((actual["vectors"].float() * known).sum(dim=0).abs() > 0.9999).all()
    assert (actual["residual"] < 0.01).all()


def test_positive_is_a_convex_score():
    """As in the paper's figures; its code, whose g is the other difference, has the other sign."""
    model = Quadratic()
    vectors = eigenpairs(MeanHessian(model, images(), zeros(), 1, 1.0), k=4, tol=1e-5)["vectors"]
    for vector, convex in ((vectors[:, 0], True), (vectors[:, -1], False)):
        ends = traced_logits(model, images(), vector, torch.tensor([-2.0, 0.0, 2.0]))[:, :, 1]
        assert ((ends[0] + ends[2] > 2 * ends[1]) == convex).all()


def test_the_operator_is_the_mean_over_points_and_keeps_lengths():
    hessian = MeanHessian(Quadratic(), images(), zeros(), 1, 0.5)
    v = np.random.default_rng(0).standard_normal(SIDE**2)
    np.testing.assert_allclose(hessian(3 * v), 3 * hessian(v), rtol=1e-3, atol=1e-3)
    whole = Quadratic().vectors @ torch.diag(torch.tensor(VALUES)) @ Quadratic().vectors.T
    np.testing.assert_allclose(hessian(v), whole.double().numpy() @ v, atol=1e-3)


def test_strict_is_the_curvature_of_the_level_set():
    """Of |x|^2 / 2: a sphere, 1 over its radius along every tangent and 0 along the normal."""

    def ball(x):
        return torch.stack([0 * x.flatten(1).sum(dim=1), x.flatten(1).square().sum(dim=1) / 2], dim=1)

    point = images(1)
    hessian = MeanHessian(ball, point, zeros(1), 1, 0.01, strict=True)
    normal = point.flatten().double().numpy()
    radius = np.linalg.norm(normal)
    assert np.linalg.norm(hessian(normal / radius)) < 1e-3
    tangent = np.random.default_rng(0).standard_normal(len(normal))
    tangent -= (tangent @ normal) * normal / radius**2
    np.testing.assert_allclose(hessian(tangent), tangent / radius, rtol=0.01, atol=1e-2)


def test_toward_reaches_the_class_with_the_overshoot_included():
    model, given = linear(classes=2), 0.5 + 0.1 * (images() - 0.5)  # away from 0 and 1, where DeepFool stays inside
    given = given[model(given).argmax(dim=1) == 1]
    start, r, labels = reach_class(model, given, torch.ones(len(given)).long(), 0, count=3, steps=5, overshoot=0.05)
    assert len(start) == 3 and (labels == 1).all()
    assert (model(start + r).argmax(dim=1) == 0).all()
    margins = model(start) @ torch.tensor([-1.0, 1.0]) / (model.weight[0] - model.weight[1]).norm()
    torch.testing.assert_close(r.flatten(1).norm(dim=1), 1.05 * margins, rtol=1e-2, atol=1e-4)


def test_the_step_is_the_papers():
    given = torch.zeros(2, 1, 28, 28)
    given[0, 0, 0, 0] = 255
    assert step_length(given) == pytest.approx(28 * 255 / 512 * 10)


CURVATURE = torch.tensor([4.0, 1.0, 0.1, -2.0, -5.0])


@pytest.mark.parametrize(
    "how, wanted",
    [("first", [0, 1]), ("last", [4, 3]), ("most", [4, 0]), ("least", [2, 1]), ("first_and_last", [0, 4])],
)
def test_a_basis_takes_what_its_name_says(how, wanted):
    assert select_pairs(CURVATURE, how, 2).tolist() == wanted


def test_a_basis_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="there are 5"):
        select_pairs(CURVATURE, "most", 6)
    with pytest.raises(ValueError, match="did you mean 'most'"):
        select_pairs(CURVATURE, "mos", 2)


def test_classes_take_turns_with_equal_numbers():
    classes = [{"vectors": torch.eye(12)[:, 5 * c : 5 * c + 5], "curvature": CURVATURE} for c in range(2)]
    assert interleave(classes, "most", 2).argmax(dim=0).tolist() == [4, 9, 0, 5]


def test_a_direction_that_adds_nothing_adds_no_dimension():
    vectors = torch.tensor([[1.0, 2.0, 1.0], [1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    basis = orthonormal(vectors)
    assert basis.shape == (3, 2)
    torch.testing.assert_close(basis @ basis.T @ vectors.double(), vectors.double())


def test_random_bases_are_orthonormal_and_beside_what_they_should_be():
    other = random_basis(20, 6, seed=3)
    basis = random_basis(20, 8, seed=0, orthogonal_to=other)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8).double())
    assert (other.T @ basis).abs().max() < 1e-12
    with pytest.raises(ValueError, match="15 directions orthogonal to 6 others in 20"):
        random_basis(20, 15, orthogonal_to=other)


def test_first_order_directions_are_those_of_the_perturbations():
    way = random_basis(30, 2)
    amounts = torch.tensor([[3.0, 0.0], [5.0, 0.1], [0.0, 0.0], [-2.0, 0.1]]).double()
    vectors, values = attack_directions(amounts @ way.T)
    assert abs(vectors[:, 0] @ way[:, 0]) > 0.999 and values[0] > 10 * values[1]
    assert values.square().sum() == pytest.approx(3)  # three of length 1


def test_a_random_subspace_holds_the_square_root_of_its_share():
    vectors = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    assert share_within(random_basis(100, 25), vectors).mean() == pytest.approx(0.5, abs=0.02)
    assert share_within(torch.eye(100)[:, :3], torch.eye(100)[:2]).tolist() == [1, 1]


def test_a_universal_perturbation_of_a_linear_model_is_its_normal():
    model = linear(classes=2)
    toward_one = model.weight[1] - model.weight[0]
    wanted = toward_one / toward_one.norm() * 2
    model.bias.copy_(torch.tensor([50.0, 0.0]))  # nobody is fooled, so that everybody pulls
    actual = universal_perturbation(model, images() * 0, zeros(), norm=2.0).flatten()
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_confined_attacks_pay_for_what_the_subspace_lacks():
    model = linear(classes=2)
    labels = model(images()).argmax(dim=1)
    slope = model.weight[0] - model.weight[1]
    basis = random_basis(SIDE**2, 4)
    lack = (model(images()) @ torch.tensor([1.0, -1.0])).abs()
    wanted = lack / (basis.float().T @ slope).norm()
    torch.testing.assert_close(
        confined_lengths(model, images(), labels, basis, 30).float(), wanted, rtol=0.01, atol=1e-3
    )
    other = random_basis(SIDE**2, 4, orthogonal_to=orthonormal(slope[:, None]))
    assert (
        confined_lengths(model, images(), labels, other, 5) > 1e5
    ).all()  # all but rounding is orthogonal to the slope


def test_a_projector_is_a_weights_files_module():
    module = projection(random_basis(SIDE**2, 4), images())
    assert module.config == {"name": "subspace", "channels": 1, "size": SIDE, "dimensions": 4}
    torch.testing.assert_close(module(images()).mean(dim=0), images().mean(dim=0))


FEW = {
    "samples": 4, "k": 4, "dimensions": [3, 12, 30, 60], "images": 30, "measured": 8, "attacked": 6,
    "confined_steps": 5,
    "perturbations": 20, "traced": 2, "universals": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def smooth():
    """A network without kinks that classifies the squares."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 3))
    data = splits()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.train.images), data.train.labels).backward()
        optimiser.step()
    return model.eval()


def study(place, **options):
    claims = run(place, **{**FEW, **options})
    place.finish(
        claims, {"command": "python analyse.py study=[directions]", "options": {}, "defences": [], "notes": []}
    )
    return {claim.name: claim for claim in claims}


def test_the_study_runs_and_goes_on_where_it_was_ended(tmp_path, smooth):
    data = splits()
    claims = study(bench("directions", tmp_path / "analysis/directions", data, {"none": smooth}))
    assert claims["curved"].verdict == "holds"
    assert claims["one_matrix"].verdict == "holds", claims["one_matrix"].found  # no kinks
    folder = tmp_path / "analysis/directions"
    assert {path.stem for path in folder.glob("*.csv")} == {
        "pairs", "traces", "lines", "constants", "subspaces", "components",
    }  # fmt: skip
    parts = {path: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    (gone,) = (folder / "parts").glob("class-1-*")
    gone.unlink()
    assert study(bench("directions", folder, data, {"none": smooth})) == claims
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before
    made = {path for path in (folder / "parts").iterdir() if path.stat().st_mtime_ns != parts[path]}
    assert made == {gone}

    left = weights.load(folder / "subspace.safetensors")
    assert left.header["study"] == "directions" and left.header["classifier"] == weights.fingerprint(smooth)
    assert left(data.test.images).shape == data.test.images.shape

    page = write_analysis(tmp_path)["analysis"].read_text()
    assert page.count("<svg") == 10 and "Directions and subspaces" in page
    assert json.loads((folder / "study.json").read_text())["grids"].keys() == {"directions", "kept", "universals"}


def test_a_linear_model_has_no_second_order_directions_and_the_study_says_so(tmp_path):
    place = bench("directions", tmp_path / "analysis/directions", splits(), {"none": linear(3, 64)})
    claims = study(place, steps=30)
    assert list(claims) == ["curved"]
    assert claims["curved"].verdict == "fails"
    assert claims["curved"].found.startswith("the Hessian is zero")
    assert "the Hessian is zero" in write_analysis(tmp_path)["analysis"].read_text()


@pytest.mark.parametrize(
    "options, line",
    [
        ({"dimensions": []}, r"dimensions=\[\]: some numbers above 0"),
        ({"traced": 5}, "traced=5: from 1 to k=4"),
        ({"purifier_share": 1.5}, "purifier_share=1.5: above 0, and at most 1"),
        ({"purifier_basis": "first"}, "purifier_share=0.94: basis first has fewer than 60 directions"),
        ({"bases": ["most", "rnadom"]}, "did you mean 'random'"),
        ({"bases": ["most", "least"]}, "the claims need random among them"),
        ({"k": 64}, "k=64: from 1 to 63"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(tmp_path, smooth, options, line):
    with pytest.raises(ValueError, match=line) as error:
        study(bench("directions", tmp_path, splits(), {"none": smooth}), **options)
    assert "\n" not in str(error.value)
