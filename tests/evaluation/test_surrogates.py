"""Surrogates of purifiers: what a fit learns, what it reads, what it depends on, and that it is made once."""

import json
import shutil

import pytest
import torch
from jobs import SIDE, Blur, Noisy, crafted, defence, evaluated, files, gray_box, pictures, rows, white_box
from torch import nn
from torch.nn import functional

from s2snet.evaluation import fitted as fitting
from s2snet.threats import SURROGATES, fit
from s2snet.threats.surrogates import BATCH, SHAKE

FITTED = ("learned", "affine")


def train_batches(images):
    return lambda places: images[places]


def fitted(kind: str, purifier: nn.Module, steps: int = 80, seed: int = 0, images=None) -> tuple[nn.Module, float]:
    images = pictures(60, seed=1).images if images is None else images
    surrogate = SURROGATES[kind](images.shape[1])
    error = fit(surrogate, purifier, train_batches(images), len(images), steps, seed)
    return surrogate, error


@pytest.mark.parametrize("kind", FITTED)
def test_a_fit_knows_the_purifier_better_than_the_identity_does_also_where_it_moves(kind):
    """On images it never saw: the values, and the change under a perturbation."""
    surrogate, error = fitted(kind, Blur(), 300)
    unseen = pictures(40, seed=9).images
    moved = (unseen + 0.1 * torch.randn(unseen.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    blurred, again = Blur()(unseen), Blur()(moved)
    assert functional.mse_loss(surrogate(moved), again) < 0.5 * functional.mse_loss(moved, again)
    change, wanted = surrogate(moved) - surrogate(unseen), again - blurred
    assert functional.mse_loss(change, wanted) < 0.6 * functional.mse_loss(moved - unseen, wanted)
    assert 0 < error < functional.mse_loss(moved, again)


def test_the_affine_surrogate_can_be_a_blur_exactly():
    surrogate, error = fitted("affine", Blur(), 100, images=torch.rand(60, 1, SIDE, SIDE))
    kernel = torch.zeros(9, 9)
    kernel[3:6, 3:6] = 1 / 9
    assert error < 1e-8
    torch.testing.assert_close(surrogate.layer.weight[0, 0], kernel, rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", [11, 12, (7, 10)])
@pytest.mark.parametrize("kind", FITTED)
def test_surrogates_take_images_of_any_side(kind, side):
    height, width = side if isinstance(side, tuple) else (side, side)
    images = torch.rand(2, 3, height, width)
    assert SURROGATES[kind](3)(images).shape == images.shape


@pytest.mark.parametrize("kind", FITTED)
def test_the_same_seed_gives_the_same_bits(kind):
    def bits(seed):
        torch.manual_seed(torch.randint(1000, ()).item())  # whatever came before
        return [tensor.clone() for tensor in fitted(kind, Blur(), 5, seed)[0].state_dict().values()]

    first, again, other = bits(0), bits(0), bits(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.abs().sum())


@pytest.mark.parametrize("kind", FITTED)
def test_a_fitted_surrogate_asks_for_no_gradients_and_leaves_the_purifier_alone(kind):
    torch.manual_seed(0)
    purifier = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)).eval()
    before = {name: tensor.clone() for name, tensor in purifier.state_dict().items()}
    surrogate, _ = fitted(kind, purifier, 3)
    assert not surrogate.training
    assert not any(parameter.requires_grad for parameter in surrogate.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in purifier.state_dict().items())
    assert all(parameter.grad is None for parameter in purifier.parameters())


def test_a_fit_sees_training_images_and_little_beside_them():
    """Every batch is of the given images, each shaken by less than SHAKE and still in the box."""
    images, shown = pictures(20, seed=1).images, []

    class Recording(Blur):
        def forward(self, x):
            shown.append(x.clone())
            return super().forward(x)

    fitted("learned", Recording(), 6, images=images)
    assert [x.shape for x in shown] == [(min(BATCH, 20), 1, SIDE, SIDE)] * 7  # the last one measures
    everything = torch.cat(shown)
    assert 0 <= everything.min() <= everything.max() <= 1
    nearest = (everything[:, None] - images[None]).abs().flatten(2).amax(dim=2).amin(dim=1)
    assert 0.5 * SHAKE < nearest.max() <= SHAKE + 1e-6


class Forbidden:
    """Test images that an evaluation may read, and a fit may not."""

    def __init__(self, images):
        self._images, self.fitting = images, False

    def __len__(self):
        return len(self._images)

    def __getitem__(self, place):
        assert not self.fitting
        return self._images[place]

    def __getattr__(self, name):
        return getattr(self._images, name)


ROUTES = {"threats": white_box("exact", *FITTED), "defences": [defence("blur", Blur())]}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An evaluation by the fitted routes. Not to be written to."""
    return evaluated(tmp_path_factory.mktemp("done") / "r", **ROUTES)


def test_an_evaluation_fits_on_training_images_only(monkeypatch, done):
    test, train = Forbidden(pictures()), pictures(40, seed=1)
    real = fitting.fit

    def watched(surrogate, purifier, batches, count, *words, **options):
        test.fitting = True
        assert count == len(train)
        assert torch.equal(batches(torch.tensor([3, 0])), train.images[[3, 0]])
        error = real(surrogate, purifier, batches, count, *words, **options)
        test.fitting = False
        return error

    monkeypatch.setattr(fitting, "fit", watched)
    folder, _ = evaluated(images=test, train=train, **ROUTES)
    assert files(folder) == files(done[0])


def test_a_fit_is_reported_kept_and_made_once(done, monkeypatch):
    folder, messages = done
    assert sorted(line for line in messages if "fitting" in line) == [
        "fitting the affine surrogate of blur, 5 steps", "fitting the learned surrogate of blur, 5 steps"
    ]  # fmt: skip
    shutil.copytree(folder, "r")
    assert len(list((folder / "ledger/fits").glob("*.safetensors"))) == 2
    monkeypatch.setattr(fitting, "fit", lambda *words, **options: pytest.fail("fitted again"))
    again, messages = evaluated(**ROUTES)
    assert not messages
    assert files(again) == files(folder)
    assert crafted(again) == crafted(folder)
    # more attacks and budgets share the fit
    evaluated(**ROUTES, attacks={"pgd": {"steps": 3}, "fgsm": {}}, budgets={"linf": [0.05, 0.1]})


def test_a_damaged_fit_is_made_anew(done):
    shutil.copytree(done[0], "r")
    (path, _) = sorted(done[0].__class__("r/ledger/fits").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-9])
    shutil.rmtree("r/ledger/crafted")
    shutil.rmtree("r/ledger/judged")
    folder, messages = evaluated(**ROUTES)
    assert len([line for line in messages if line.startswith("fitting")]) == 1
    assert f"damaged file moved aside and made again: {path}" in messages
    assert files(folder) == files(done[0])


@pytest.mark.parametrize(
    "changed, routes",
    [
        ({"train": pictures(40, seed=2)}, {*FITTED}),
        ({"threats": white_box("exact", *FITTED, fit_steps=6)}, {*FITTED}),
        ({"defences": [defence("blur", nn.Sequential(Blur(), Blur()))]}, {"exact", *FITTED}),
    ],
    ids=["training images", "steps", "purifier"],
)
def test_what_a_fit_depends_on_is_in_the_key(done, changed, routes):
    shutil.copytree(done[0], "r")
    folder, messages = evaluated(**(ROUTES | changed))
    assert len([line for line in messages if line.startswith("fitting")]) == 2
    new = {key for key, _ in crafted(folder)} - {key for key, _ in crafted(done[0])}
    cells = json.loads((folder / "run.json").read_text())["cells"]
    assert {cell["route"] for cell in cells if cell["crafted"] in new} == routes


def test_the_fit_of_a_purifier_that_answers_at_random_repeats():
    words = {"threats": white_box("learned"), "defences": [defence("noisy", Noisy())]}
    torch.manual_seed(1)
    first, _ = evaluated("a", **words)
    torch.manual_seed(2)
    again, _ = evaluated("b", **words)
    assert files(first) == files(again)


def test_through_a_blur_the_affine_route_is_the_exact_one_and_the_learned_is_not(done):
    by_route = {}
    for row in rows(done[0], threat="white_box"):
        by_route.setdefault(row["route"], []).append(row["l2"])
    assert by_route["affine"] == pytest.approx(by_route["exact"], rel=0.02)
    assert by_route["learned"] != pytest.approx(by_route["exact"], rel=0.02)


def test_without_training_images_there_is_no_fit():
    folder, messages = evaluated(
        train=None, defences=ROUTES["defences"], threats=white_box("exact", *FITTED) | gray_box()
    )
    assert not messages
    assert {row["route"] for row in rows(folder)} == {"", "exact"}
