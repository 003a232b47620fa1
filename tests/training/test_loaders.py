"""Order and augmentation follow from (seed, epoch, index): not from workers, ranks or where a run was resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from trees import plant

from s2snet import data
from s2snet.config.recipe import Recipe
from s2snet.training.loaders import Augmented, Batches, EpochSampler, ResumableLoader, derived_seed

STILL = Recipe(batch_size=100)
RECIPE = Recipe(batch_size=100, shift=2)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits", size=12)


def batches(splits, epoch: int, seed: int = 0, workers: int = 0, loader=None) -> list:
    loader = loader or Batches(splits, RECIPE, seed, workers).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_workers_change_nothing(splits):
    loaders = [Batches(splits, RECIPE, 0, workers).train_dataloader() for workers in (0, 2)]
    for epoch in (0, 1):
        assert equal(*(batches(splits, epoch, loader=loader) for loader in loaders))


def test_epochs_and_seeds_differ_and_repeat(splits):
    assert equal(batches(splits, 1), batches(splits, 1))
    assert not equal(batches(splits, 1), batches(splits, 2))
    assert not equal(batches(splits, 1, seed=0), batches(splits, 1, seed=1))


def test_an_epoch_has_each_image_once(splits):
    index = torch.cat([batch[2] for batch in batches(splits, 0)])
    assert len(index) == len(set(index.tolist())) == 1200  # what fills no batch waits for another epoch's order
    seen = set.union(*(set(torch.cat([batch[2] for batch in batches(splits, e)]).tolist()) for e in range(4)))
    assert len(seen) > 1250


def test_augmentation_is_of_seed_epoch_and_index(splits):
    """Not of the order in which images are asked for."""
    moved = Augmented(splits.train, RECIPE, seed=0)
    first = [moved[(3, place)][0] for place in range(20)]
    again = [moved[(3, place)][0] for place in reversed(range(20))][::-1]
    assert all(map(torch.equal, first, again))
    for other in (Augmented(splits.train, RECIPE, seed=1), moved):
        epoch = 3 if other is not moved else 4
        assert sum(not torch.equal(other[(epoch, place)][0], first[place]) for place in range(20)) > 10


def test_augmentation_shifts_within_its_bound(splits):
    moved, plain = Augmented(splits.train, RECIPE, seed=0), Augmented(splits.train, STILL, seed=0)
    seen = set()
    for place in range(60):
        image = splits.train[place][0]
        assert torch.equal(plain[(0, place)][0], image)
        shifted = moved[(0, place)][0]
        padded = torch.nn.functional.pad(image, [2] * 4)
        fits = [(d, r) for d in range(5) for r in range(5) if torch.equal(padded[:, d : d + 12, r : r + 12], shifted)]
        assert fits
        seen.add(fits[0])
    assert len(seen) > 15  # of 25


def test_ranks_together_see_what_one_process_sees():
    alone = EpochSampler(103, 8, seed=5)
    alone.set_epoch(2)
    whole = [place for _, place in alone]
    shares = []
    for rank in (0, 1):
        sampler = EpochSampler(103, 4, seed=5)
        sampler.rank, sampler.ranks = rank, 2
        sampler.set_epoch(2)
        shares.append([place for _, place in sampler])
        assert sampler.batches() == alone.batches() == 12
        assert len(shares[-1]) == len(sampler) == 48
    for batch in range(12):
        together = {place for share in shares for place in share[batch * 4 : batch * 4 + 4]}
        assert together == set(whole[batch * 8 : batch * 8 + 8])


def test_a_batch_larger_than_the_data_is_the_data():
    sampler = EpochSampler(10, 64, seed=0)
    assert sampler.batches() == 1
    assert sorted(place for _, place in sampler) == list(range(10))


@pytest.mark.parametrize("done", [0, 1, 7])
def test_a_loader_goes_on_where_it_was(splits, done):
    whole = batches(splits, 4)
    loader = Batches(splits, RECIPE, 0, 0).train_dataloader()
    loader.sampler.set_epoch(4)
    walk = iter(loader)
    for _ in range(done):
        next(walk)
    resumed = Batches(splits, RECIPE, 0, 0).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert equal(batches(splits, 4, loader=resumed), whole[done:])
    assert equal(batches(splits, 5, loader=resumed), batches(splits, 5))  # and the next epoch is whole again


def test_a_loader_that_ended_an_epoch_begins_the_next(splits):
    loader = Batches(splits, RECIPE, 0, 0).train_dataloader()
    batches(splits, 0, loader=loader)
    resumed = Batches(splits, RECIPE, 0, 0).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert isinstance(resumed, ResumableLoader)
    assert equal(batches(splits, 1, loader=resumed), batches(splits, 1))


def test_derived_seeds_do_not_collide():
    seeds = {derived_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 23) != derived_seed(12, 3)


@pytest.mark.parametrize(
    "changes", [{"flip": True}, {"scale": [0.2, 0.6]}, {"flip": True, "scale": [0.2, 0.6], "shift": 2}]
)
def test_workers_change_no_augmentation_of_files(changes, tmp_path):
    root = plant(tmp_path, [f"{kind}/{number}.png" for kind in "ab" for number in range(20)])
    splits = data.load("imagefolder", root=str(root), size=16)
    recipe = replace(STILL, batch_size=16, **changes)
    loaders = [Batches(splits, recipe, 0, workers).train_dataloader() for workers in (0, 2)]
    first, second = (batches(splits, 1, loader=loader) for loader in loaders)
    assert equal(first, second)
    assert first[0][0].shape == (16, 3, 16, 16) and 0 <= first[0][0].min() < first[0][0].max() <= 1
    still = Augmented(splits.train, STILL, 0)
    changed = Augmented(splits.train, recipe, 0)
    assert sum(not torch.equal(still[(1, place)][0], changed[(1, place)][0]) for place in range(20)) >= 5
    before = torch.get_rng_state()
    _ = changed[(1, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_half_of_the_images_are_mirrored(splits):
    mirrored = Augmented(splits.train, replace(STILL, flip=True), seed=0)
    turned = 0
    for place in range(200):
        image, found = splits.train[place][0], mirrored[(0, place)][0]
        assert torch.equal(found, image) or torch.equal(found, image.flip(2))
        turned += not torch.equal(found, image)
    assert 70 < turned < 130


def test_a_crop_takes_its_share_of_the_files_own_pixels(tmp_path):
    """A ramp from left to right: a crop's span of values is its width's share."""
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.fromarray(ramp).save(tmp_path / name / f"{number}.png")
    train = data.load("imagefolder", root=str(tmp_path), size=16, resize=16).train
    cropped = Augmented(train, replace(STILL, scale=[0.04, 0.09]), seed=0)
    spans = [float(image.max() - image.min()) for image, _, _ in (cropped[(0, place)] for place in range(len(train)))]
    assert all(0.15 < span < 0.4 for span in spans)  # sides of 0.2 to 0.3, times at most the root of 4 / 3
    whole = Augmented(train, replace(STILL, scale=[1.0, 1.0]), seed=0)[(0, 0)][0]
    assert whole.max() - whole.min() > 0.8


@pytest.mark.parametrize("size, batch", [(8, 30), (224, 20), (2048, 1)])
def test_large_images_are_measured_few_at_a_time(size, batch):
    """256 at once of 224 x 224 would take a full SegNet tens of gigabytes."""
    images = data.Images(
        torch.zeros(30, 1, 1, 1, dtype=torch.uint8).expand(-1, 1, size, size), *[torch.arange(30)] * 2, []
    )
    validated = Batches(data.Splits(images, images, images), RECIPE, 0, workers=2).val_dataloader()
    assert len(next(iter(validated))[0]) == batch and validated.num_workers == 0


def test_workers_read_the_files_that_are_measured(tmp_path):
    root = plant(tmp_path, [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(20)])
    splits = data.load("imagefolder", root=str(root), size=16)
    one, two = (Batches(splits, RECIPE, 0, workers).val_dataloader() for workers in (0, 2))
    assert two.num_workers == 2 and equal(list(one), list(two))
