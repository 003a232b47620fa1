"""Streams of shards resume exactly where they were: batch by batch, after kill -9, with workers and over ranks."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tars import jpeg, member, pictures, write_shards, write_tar
from tiny import evaluate, forked, kill_self, train

from s2snet import data
from s2snet.config.recipe import Recipe
from s2snet.data.image_files import middle
from s2snet.store import weights
from s2snet.training import streaming
from s2snet.training.stage import Stage
from s2snet.training.streaming import Slot, StreamLoader, shuffled

SHARDS, EACH = 7, 10  # to train on: six, since the last one is held out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven shards of ten pictures; the fourth breaks off, the fifth has a duplicate and a picture too small."""
    folder = write_shards(tmp_path_factory.mktemp("shards"), SHARDS, EACH, labels=3)
    broken = folder / "shard-003.tar"
    write_tar(broken, pictures(30, 7, 3))
    content = broken.read_bytes()
    broken.write_bytes(content[: content.rindex(jpeg(36))])
    write_tar(
        folder / "shard-004.tar", [*pictures(40, 8, 3), member("t.jpg", jpeg(41)), member("s.jpg", jpeg(1, 9, 9))]
    )
    return folder


RECIPE = Recipe(batch_size=4, flip=True)
USABLE = {0: 10, 1: 10, 2: 10, 3: 5, 4: 8, 5: 10}  # pictures of each training shard


def shards(folder, **options) -> data.Shards:
    given = {"size": 12, "resize": 14, "shuffle": 4, "epoch_images": 24, "classes": 3, "reject": {"least_side": 12}}
    return data.load("webdataset", shards=str(folder), **{**given, **options}).train


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def taken(loader: StreamLoader, count: int) -> list:
    """The next `count` batches, over as many epochs as it takes."""
    found = []
    while len(found) < count:
        for batch in loader:
            found.append(batch)
            if len(found) == count:
                break
    return found


# the order


def test_a_buffer_shuffles_and_loses_nothing():
    assert list(shuffled(range(50), 1, seed=0)) == list(range(50))
    one, again, other = (list(shuffled(range(50), 8, seed)) for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one) == list(range(50))
    assert max(place - number for place, number in enumerate(one)) > 8
    assert all(number < place + 8 for place, number in enumerate(one))  # no more than the buffer is read ahead


@pytest.mark.parametrize("ranks, workers", [(1, 1), (2, 1), (2, 2), (1, 5)])
def test_slots_share_all_shards_of_a_pass_without_overlap(folder, ranks, workers):
    """All slots together read every usable picture once in pass 0, and once in pass 1."""
    source = shards(folder)
    for wanted in (0, 1):
        seen = []
        for slot in range(ranks * workers):
            for (_, _, index), position, _ in Slot(source, replace(RECIPE, batch_size=1), 5, slot, ranks * workers):
                if position[0] > wanted:
                    break
                if position[0] == wanted:
                    seen.append(int(index))
        assert len(seen) == len(set(seen)) == sum(USABLE.values())
        per_shard = [sum(index >> 32 == number for index in seen) for number in USABLE]
        assert per_shard == list(USABLE.values())


def test_ranks_and_workers_are_slots(folder):
    """Two ranks of one worker read the same as two slots."""
    source = shards(folder)
    for rank in (0, 1):
        loader = StreamLoader(source, RECIPE, 5, 0)
        loader.rank, loader.ranks = rank, 2
        alone = iter(Slot(source, RECIPE, 5, rank, 2))
        assert equal(taken(loader, 6), [next(alone)[0] for _ in range(6)])


def test_pictures_are_cut_anywhere_mirrored_and_scaled_by_the_recipe(folder):
    """Each by its own seed: what the recipe asks for is there, and what it does not ask for is not."""
    source = shards(folder, size=24, resize=24)  # the pictures' own size: a crop is all of it
    plain, mirrored, scaled = (
        {int(i): image for images, _, index in taken(StreamLoader(source, replace(RECIPE, **change), 0, 0), 12)
         for image, i in zip(images, index, strict=True)}
        for change in ({"flip": False}, {"flip": True}, {"flip": False, "scale": [0.3, 0.5]})
    )  # fmt: skip
    assert plain.keys() == mirrored.keys() == scaled.keys() and len(plain) > 40
    flips = sum(torch.equal(mirrored[i], plain[i].flip(2)) for i in plain)
    assert flips + sum(torch.equal(mirrored[i], plain[i]) for i in plain) == len(plain) and flips > 10
    assert not any(torch.equal(scaled[i], plain[i]) for i in plain)
    for sample in source.samples(0):
        if sample.place in plain:
            assert torch.equal(plain[sample.place], middle(source.picture(sample), 24, 24, "").float() / 255)
    cropped = shards(folder, size=20, resize=24)
    seen = set()
    for images, _, index in taken(StreamLoader(cropped, replace(RECIPE, flip=False), 0, 0), 12):
        for image, i in zip(images, index.tolist(), strict=True):
            windows = plain[i].unfold(1, 20, 1).unfold(2, 20, 1)
            ((down, right),) = [(d, r) for d in range(5) for r in range(5) if torch.equal(windows[:, d, r], image)]
            seen.add((down, right))
    assert len(seen) > 12  # of 25


def test_passes_and_seeds_differ_and_labels_are_right(folder):
    source = shards(folder)
    first, again, other = (taken(StreamLoader(source, RECIPE, seed, 0), 30) for seed in (0, 0, 1))
    assert equal(first, again) and not equal(first, other)
    index = torch.cat([index for _, _, index in first]).tolist()
    one_pass = sum(USABLE.values())
    assert sorted(index[:one_pass]) == sorted(index[one_pass : 2 * one_pass])
    assert index[:one_pass] != index[one_pass : 2 * one_pass]
    images, labels, index = first[0]
    assert images.shape == (4, 3, 12, 12) and images.dtype == torch.float32 and 0.5 < images.max() <= 1
    assert images.is_contiguous() and type(images) is torch.Tensor
    whole = [number for number in index.tolist() if number >> 32 in (0, 1, 2)]
    assert all(
        label == ((number >> 32) * EACH + number % 2**32) % 3
        for label, number in zip(labels.tolist(), index.tolist(), strict=True)
        if number in whole
    )


# resuming


@pytest.mark.parametrize("workers, done", [(0, 0), (0, 1), (0, 5), (0, 6), (0, 12), (0, 23), (2, 1), (2, 6), (2, 23)])
def test_a_stream_goes_on_where_it_was(folder, workers, done):
    """Six batches are an epoch; the last state is in the third pass. Nothing is repeated, nothing skipped."""
    source = shards(folder)
    whole = taken(StreamLoader(source, RECIPE, 0, workers), 35)
    loader = StreamLoader(source, RECIPE, 0, workers)
    before = taken(loader, done)
    resumed = StreamLoader(source, RECIPE, 0, workers)
    resumed.load_state_dict(loader.state_dict())
    assert equal([*before, *taken(resumed, 35 - done)], whole)
    straight = StreamLoader(source, RECIPE, 0, workers)
    taken(straight, 35)
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.rejected == straight.rejected and resumed.rejected["broken_shard"] >= 1


def test_going_on_decodes_nothing_that_was_handed_out(folder, monkeypatch):
    source = shards(folder)
    loader = StreamLoader(source, RECIPE, 0, 0)
    taken(loader, 9)
    resumed = StreamLoader(source, RECIPE, 0, 0)
    resumed.load_state_dict(loader.state_dict())
    decoded = []
    picture = data.Shards.picture
    monkeypatch.setattr(data.Shards, "picture", lambda *given: decoded.append(given) or picture(*given))
    taken(resumed, 1)
    assert 4 <= len(decoded) <= 4 + 3  # and what is rejected on the way


def test_an_epoch_is_its_number_of_images(folder):
    loader = StreamLoader(shards(folder, epoch_images=30), RECIPE, 0, 0)
    assert len(loader) == len(list(loader)) == 7
    loader.ranks = 2
    assert len(loader) == 3


@pytest.mark.parametrize(
    "change, line",
    [
        ({"workers": 2}, "the same trainer.workers; it had 1, not 2"),
        ({"ranks": 2}, "the same number of ranks; it had 1, not 2"),
        ({"batch_size": 5}, "the same batch_size; it had 4, not 5"),
        ({"seed": 1}, "the same seed; it had 0, not 1"),
        ({"epoch_images": 25}, "the same data.epoch_images; it had 24, not 25"),
        ({"shuffle": 5}, "the same data.shards and options of data"),
        ({"held_out_shards": 2}, "the same data.shards and options of data"),
    ],
)
def test_going_on_otherwise_is_one_line(folder, change, line):
    state = StreamLoader(shards(folder), RECIPE, 0, 0).state_dict()
    options = {key: value for key, value in change.items() if key not in ("workers", "ranks", "batch_size", "seed")}
    source = shards(folder, **options)
    recipe = replace(RECIPE, batch_size=change.get("batch_size", 4))
    loader = StreamLoader(source, recipe, change.get("seed", 0), change.get("workers", 0))
    loader.ranks = change.get("ranks", 1)
    with pytest.raises(ValueError) as error:
        loader.load_state_dict(state)
    assert str(error.value) == f"ckpt_path: a stream of shards resumes only with {line}"


def test_a_checkpoint_of_other_data_is_one_line(folder):
    with pytest.raises(ValueError, match=r"^ckpt_path: the checkpoint belongs to a run on other data than a stream"):
        StreamLoader(shards(folder), RECIPE, 0, 0).load_state_dict({"handed_out": 3})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_without_images_ends_in_one_line(tmp_path, workers):
    for number in range(4):
        write_tar(tmp_path / f"{number}.tar", pictures(10 * number, 3))
    source = shards(tmp_path)
    for name in source.names:
        Path(name).write_bytes(b"")
    with pytest.raises(ValueError) as error:
        next(iter(StreamLoader(source, RECIPE, 0, workers)))
    assert str(error.value).startswith("data.shards: no image in a whole pass over 3 shards; the last was rejected as ")
    assert "broken_shard" in str(error.value) and "\n" not in str(error.value)


def test_too_few_shards_are_one_line(folder):
    loader = StreamLoader(shards(folder), RECIPE, 0, workers=4)
    loader.ranks = 2
    with pytest.raises(ValueError) as error:
        next(iter(loader))
    assert str(error.value) == (
        "data.shards: 6 training shards for 8 reading processes (2 x trainer.workers=4); each needs at least one"
    )


def test_a_checkpoint_has_the_positions_of_all_ranks(folder, monkeypatch):
    """Only the first rank writes it: the others' come through the gathering, and each finds its own again."""
    source = shards(folder)
    loaders = [StreamLoader(source, RECIPE, 0, 0) for _ in range(2)]
    whole = []
    for rank, loader in enumerate(loaders):
        loader.rank, loader.ranks = rank, 2
        whole.append(taken(loader, 3))
    own = []
    monkeypatch.setattr(streaming, "_gathered", lambda mine: own.append(mine) or [mine])
    for loader in loaders:
        loader.state_dict()
    monkeypatch.setattr(streaming, "_gathered", lambda mine: own)
    state = loaders[0].state_dict()
    for rank, loader in enumerate(loaders):
        resumed = StreamLoader(source, RECIPE, 0, 0)
        resumed.rank, resumed.ranks = rank, 2
        resumed.load_state_dict(state)
        assert equal(taken(resumed, 4), taken(loader, 4))


# through the command


def words(folder, *more: str) -> list[str]:
    few = {"shards": folder, "epoch_images": 24, "resize": 18, "shuffle": 4, "classes": 3, "reject.least_side": 12}
    return [
        "data=webdataset",
        *(f"data.{key}={value}" for key, value in few.items()),
        "stage=1",
        "recipes.stage1.epochs=3",
        "recipes.stage1.batch_size=4",
        "recipes.stage1.save_every=4",
        *more,
    ]


def killed_at(step: int, *given: str) -> None:
    started = Stage.on_train_batch_start

    def start(self, batch, batch_index):
        if self.global_step == step:
            kill_self()
        started(self, batch, batch_index)

    def run():
        Stage.on_train_batch_start = start
        train(*given)

    assert os.WTERMSIG(forked(run)) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_bit_equal_and_counts_alike(folder, workers, capfd):
    """18 steps; the kill is at 10, the last checkpoint of step 8 in the middle of the second epoch."""
    given = words(folder, f"trainer.workers={workers}")
    straight = train(*given, "output=straight")
    printed = capfd.readouterr().err
    killed_at(10, *given, "output=run")
    resumed = train(*given, "output=run", "ckpt_path=last")
    assert "resuming run/checkpoints/last.ckpt: epoch 1, step 8" in capfd.readouterr().err
    one, other = weights.read_header(straight), weights.read_header(resumed)
    assert one["fingerprint"] == other["fingerprint"]
    rejected = one["data"]["rejected"]
    assert rejected == other["data"]["rejected"]
    assert set(rejected) == {"broken_shard", "duplicate", "small"}
    assert one["data"]["train"] == 24 and one["data"]["test"] == 5
    assert f"rejected samples: {rejected['broken_shard']} broken_shard, " in printed
    (line,) = Path("run/damaged.txt").read_text().splitlines()
    assert line.startswith(f"{folder}/shard-003.tar: ") and one["data"]["damaged"] == other["data"]["damaged"] == 1
    assert counted("run") == counted("straight") == rejected


def counted(folder: str) -> dict[str, int]:
    """The counts of the last epoch in metrics.csv."""
    import pandas as pd

    table = pd.read_csv(f"{folder}/metrics.csv")
    last = table.filter(like="rejected_").dropna().iloc[-1]
    return {name.removeprefix("rejected_"): int(value) for name, value in last.items() if value}


def test_a_classifier_needs_labels_and_an_evaluation_too(folder, tmp_path):
    given = words(folder, "stage=classifier", "recipes.classifier.epochs=1", "recipes.classifier.batch_size=8")
    header = weights.read_header(train(*given))
    assert 0 <= header["metrics"]["accuracy"] <= 1
    found, _ = evaluate(
        *[word for word in given if word.startswith("data")], "defence=[none]", "attack=[fgsm]", "threat=[gray_box]"
    )
    assert (found / "table.csv").is_file()
    unlabelled = write_shards(tmp_path / "unlabelled", 2, 4)
    given = words(unlabelled, "stage=classifier", "output=none")
    with pytest.raises(ValueError, match=r"^data=webdataset has no labels: allowed are stage=1, "):
        train(*given)
    assert not Path("none").exists()
    with pytest.raises(ValueError, match=r"^data=webdataset has no labels: an evaluation needs them$"):
        evaluate(*[word for word in given if word.startswith("data")], "defence=[none]")


def test_stage_2_by_the_classifiers_own_labels_needs_none(folder, trained, tmp_path):
    unlabelled = write_shards(tmp_path / "unlabelled", 2, 6)
    parts = [
        f"from_{kind}={next(trained.rglob(f'{kind}-*/weights.safetensors'))}" for kind in ("classifier", "autoencoder")
    ]
    given = words(unlabelled, "stage=2", "data.channels=1", "recipes.stage2.epochs=1", "recipes.stage2.batch_size=4")
    header = weights.read_header(train(*given, "recipes.stage2.labels=classifier", "data.classes=10", *parts))
    assert 0 <= header["metrics"]["accuracy"] <= 1


def test_training_samples_without_a_label_are_rejected_where_it_counts(folder, tmp_path):
    write_tar(tmp_path / "0.tar", [*pictures(0, 5, 3), *pictures(5, 4)])
    write_tar(tmp_path / "1.tar", pictures(10, 4, 3))
    source = shards(tmp_path)
    assert (torch.cat([labels for _, labels, _ in taken(StreamLoader(source, RECIPE, 0, 0), 6)]) < 0).any()
    source.labelled = True
    loader = StreamLoader(source, RECIPE, 0, 0)
    assert (torch.cat([labels for _, labels, _ in taken(loader, 6)]) >= 0).all()
    assert loader.rejected["no_label"] >= 8


def test_a_run_without_a_length_ends_before_it_begins(folder):
    Path("run").mkdir()
    Path("run/weights.safetensors").write_text("an earlier one")
    with pytest.raises(ValueError, match=r"^data.epoch_images is required for training"):
        train(*words(folder, "data.epoch_images=null", "output=run", "overwrite=true"))
    assert Path("run/weights.safetensors").read_text() == "an earlier one"


def test_codes_of_a_stream_are_not_kept(folder, trained):
    """Each time an image comes it is cut out elsewhere, so a kept code would be of another one."""
    kept = ["stage=2", f"runs={trained}", "recipes.stage2.shift=0", "data.flip=false", "recipes.stage2.cache=memory"]
    with pytest.raises(ValueError, match=r"^recipes.stage2.cache=memory: a stream crops its images at random"):
        train(*words(folder, *kept))
