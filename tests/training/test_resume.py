"""A run that is killed and resumed has the weights of one that was not, bit for bit; and bad resumption is refused."""

import os
import signal
from pathlib import Path

import pytest
import torch
from tiny import forked, kill_self, train

from s2snet.store import weights
from s2snet.training.stage import Stage

STEPS = 5  # of 256 images an epoch
FEW = ["stage=classifier", "classifier.dropout=0.3", "recipes.classifier.batch_size=256", "recipes.classifier.shift=2"]
KILLED_AT = 8


def few(*words: str) -> list[str]:
    return [*FEW, "recipes.classifier.epochs=3", *words]


def state(path) -> dict:
    return weights.load(path).state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def killed_at(step: int, *words: str, within: int = 0) -> None:
    """The run in a process of its own that gets SIGKILL before that step, or before one of its later batches."""
    started = Stage.on_train_batch_start

    def start(self, batch, batch_index):
        if self.global_step == step and batch_index % self.recipe.accumulate == within:
            kill_self()
        started(self, batch, batch_index)

    def run():
        Stage.on_train_batch_start = start
        train(*words)

    assert os.WTERMSIG(forked(run)) == 9


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of the run that nothing happened to, and what its metrics.csv says."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    path = train(*few(f"output={folder / 'run'}"))
    return state(path), (path.parent / "metrics.csv").read_text()


# From an epoch's end; from its middle; from a checkpoint written after an epoch's last step; and with workers.
@pytest.mark.parametrize(
    "save_every, workers, resumed_from", [("null", 0, 5), ("3", 0, 6), ("2", 2, 8), (str(STEPS), 0, 5)]
)
def test_killed_and_resumed_is_bit_equal(save_every, workers, resumed_from, uninterrupted, capfd):
    words = few("output=run", f"recipes.classifier.save_every={save_every}", f"trainer.workers={workers}")
    killed_at(KILLED_AT, *words)
    assert not os.path.exists("run/weights.safetensors")
    path = train(*words, "ckpt_path=last")
    printed = capfd.readouterr().err
    assert f"resuming run/checkpoints/last.ckpt: epoch {(resumed_from - 1) // STEPS}, step {resumed_from}" in printed
    assert same(state(path), uninterrupted[0])


def test_seeds_differ_and_repeat(uninterrupted):
    """Seed 0 is a seed too."""
    assert same(state(train(*few("output=a"))), uninterrupted[0])
    others = [state(train(*few("output=b", "seed=1"))), state(train(*few("output=c", "seed=1")))]
    assert same(*others)
    assert not same(others[0], uninterrupted[0])


@pytest.mark.parametrize("stage, recipe", [("1", "stage1"), ("2", "stage2"), ("adversarial", "adversarial")])
def test_same_command_same_bytes_and_resumable(stage, recipe, trained):
    words = [
        f"stage={stage}",
        f"runs={trained}",
        *(f"recipes.{recipe}.{key}" for key in ("batch_size=256", "epochs=2")),
    ]
    first = train(*words, "output=first")
    save_often = f"recipes.{recipe}.save_every=4"
    killed_at(7, *words, "output=second", save_often)
    second = train(*words, "output=second", save_often, "ckpt_path=last")
    assert same(state(first), state(second))
    third = train(*words, "output=third")
    assert third.read_bytes() == first.read_bytes()


def test_accumulated_averaged_and_kept_is_bit_equal(trained, capfd):
    """Killed twice between two batches of one step, the second time in the first step after resuming."""
    options = {"batch_size": 128, "accumulate": 2, "ema": 0.9, "cache": "disk", "shift": 0, "warmup": 3, "epochs": 3,
               "labels": "classifier", "save_every": 3}  # fmt: skip
    words = ["stage=2", f"runs={trained}", *(f"recipes.stage2.{key}={value}" for key, value in options.items())]
    whole = train(*words, "output=whole")
    killed_at(8, *words, "output=run", within=1)
    killed_at(6, *words, "output=run", "ckpt_path=last", within=1)
    capfd.readouterr()
    path = train(*words, "output=run", "ckpt_path=last")
    assert "epoch 1, step 6" in capfd.readouterr().err
    assert same(state(path), state(whole))
    other = train(*words, "output=other", "recipes.stage2.ema=null")
    assert not same(state(other), state(whole))


def test_an_average_is_not_dropped_on_the_way():
    killed_at(KILLED_AT, *few("output=run", "recipes.classifier.ema=0.9"))
    with pytest.raises(ValueError) as error:
        train(*few("output=run", "ckpt_path=last"))
    assert str(error.value) == (
        "ckpt_path=last: run/checkpoints/last.ckpt belongs to a run with ema=0.9; resume with the same"
    )
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    del state["averaging_state"]
    torch.save(state, "run/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match=r"has the average of an earlier version; overwrite=true to start again$"):
        train(*few("output=run", "recipes.classifier.ema=0.9", "ckpt_path=last"))


def test_resumed_metrics_do_not_lose_what_was_measured_before(uninterrupted):
    words = few("output=run")
    killed_at(KILLED_AT, *words)
    before = Path("run/metrics.csv").read_text()
    train(*words, "ckpt_path=last")
    lines = Path("run/metrics.csv").read_text().splitlines()
    assert set(uninterrupted[1].splitlines()) <= set(lines)
    assert len(before.splitlines()) > 2


def test_nothing_to_go_on_from_is_refused():
    with pytest.raises(ValueError) as error:
        train(*few("output=run", "ckpt_path=last"))
    assert str(error.value) == (
        "ckpt_path=last: nothing to resume, no run/checkpoints/last.ckpt; leave ckpt_path out to start from scratch"
    )
    with pytest.raises(ValueError, match=r"ckpt_path=other.ckpt: nothing to resume, no other.ckpt"):
        train(*few("output=run", "ckpt_path=other.ckpt"))
    assert not os.path.exists("run")


def test_folders_and_commands_that_do_not_go_together_are_refused(trained):
    words = few("output=run")
    killed_at(KILLED_AT, *words)
    with pytest.raises(ValueError) as error:
        train(*words)
    assert str(error.value) == "run holds an interrupted run: ckpt_path=last to resume, overwrite=true to start again"
    with pytest.raises(ValueError, match=r"belongs to another stage than stage=1"):
        train("stage=1", "output=run", "ckpt_path=last")
    train(*words, "ckpt_path=last")
    with pytest.raises(ValueError) as error:
        train(*words)
    assert str(error.value) == "run holds a finished run: overwrite=true to retrain, output=FOLDER to write elsewhere"
    with pytest.raises(ValueError) as error:
        train(*words, "ckpt_path=last")
    assert str(error.value) == "ckpt_path=last: the run in run is finished; overwrite=true to retrain"


def test_an_overwriting_run_that_is_interrupted_can_be_resumed(uninterrupted):
    """Files of the earlier run must not pass for those of this one."""
    train(*few("output=run", "seed=7"))
    words = few("output=run")
    killed_at(KILLED_AT, *words, "overwrite=true")
    assert not os.path.exists("run/weights.safetensors")
    assert same(state(train(*words, "ckpt_path=last")), uninterrupted[0])


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_damaged_checkpoints_are_one_line(content):
    os.makedirs("run/checkpoints")
    with open("run/checkpoints/last.ckpt", "wb") as file:
        file.write(content)
    with pytest.raises(ValueError) as error:
        train(*few("output=run", "ckpt_path=last"))
    assert str(error.value) == (
        "ckpt_path=last: run/checkpoints/last.ckpt is damaged or not a checkpoint of this project"
    )


def test_every_checkpoint_loads_without_executing_anything(trained):
    checkpoints = sorted(trained.rglob("*.ckpt"))
    assert len(checkpoints) == 4
    for path in checkpoints:
        state = torch.load(path, map_location="cpu", weights_only=True)
        assert state["hyper_parameters"]["seed"] == 0
        assert type(state["hyper_parameters"]["recipe"]) is dict


def test_a_run_that_is_told_to_end_says_how_it_goes_on_and_is_no_success(capfd):
    def terminated():
        started = Stage.on_train_batch_start

        def start(self, batch, batch_index):
            started(self, batch, batch_index)
            if self.global_step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGTERM)

        Stage.on_train_batch_start = start
        try:
            train(*few("output=run"))
        except SystemExit as ended:
            os._exit(ended.code or 0)

    assert os.waitstatus_to_exitcode(forked(terminated)) == 128 + signal.SIGTERM
    assert "interrupted; the same command with ckpt_path=last resumes" in capfd.readouterr().err
