"""A purifier of one's own on the command line: by name and options, or as a weights file with as little as there is."""

import json

import pytest
import torch
from jobs import lines, rows
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from tiny import composed, evaluate, job_of

import s2snet
from s2snet import data
from s2snet.cli import messages as cli_messages
from s2snet.cli import settings
from s2snet.evaluation.job import job_of as named_job
from s2snet.models import build
from s2snet.store import paths, weights

RANDOM = ["classifier.weights=random", "defence=[none]"]
FEW = ["images=4", "attack=[fgsm]", "budgets.linf=[8/255]", "samples=0", "audit=off", "threat.white_box.fit_steps=2"]
KEPT = {"format", "module", "fingerprint"}  # without these it is no weights file of this project


def test_a_purifier_by_name_is_attacked_by_its_routes():
    folder, messages = evaluate(*RANDOM, *FEW, "+defence.mine.purifier={name: bit_depth, bits: 2}")
    assert "mine: random, bit_depth(bits=2)" in messages
    (mine,) = [given for given in json.loads((folder / "run.json").read_text())["defences"] if given["name"] == "mine"]
    assert (mine["title"], mine["about"]) == ("mine", "small_cnn (stage random) behind bit_depth (stage built)")
    routes = {row["route"] for row in rows(folder, defence="mine", threat="white_box")}
    assert routes == {"exact", "identity", "soft", "learned", "affine"}
    assert {line["status"] for line in lines(folder)} == {"done"}
    purified = {row["purified_pixel"] > 0 for row in rows(folder, defence="mine")}
    assert purified == {True}


def test_the_shipped_example_takes_another_option():
    job, _ = job_of(*RANDOM[:1], "defence=[none,bit_depth]", "defence.bit_depth.purifier.bits=1")
    assert job.defences[1].title == "Bit depth"
    assert job.modules["bit_depth"].purifier.config == {"name": "bit_depth", "bits": 1}
    assert set(job.modules["bit_depth"].purifier(torch.rand(2, 1, 16, 16)).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("purifier", "line"),
    [
        ("{name: bit_dept}", "defence.mine.purifier.name=bit_dept (did you mean 'bit_depth'?): allowed are segnet, "),
        (
            "{name: bit_depth, bitz: 3}",
            "defence.mine.purifier: bit_depth has no option 'bitz' (did you mean 'bits'?); allowed are bits",
        ),
        ("{name: bit_depth, bits: 9}", "defence.mine.purifier: bits=9: expected an integer from 1 to 8"),
        (
            "{name: segnet_small}",
            "defence.mine.purifier.name=segnet_small: has weights; give a weights file, defence.mine.purifier=FILE",
        ),
        ("{bits: 3}", "defence.mine.purifier={'bits': 3}: expected a kind of run, a weights file, or a purifier such"),
        (
            "3",
            "defence.mine.purifier=3: expected a kind of run, a weights file, or a purifier such as {name: bit_depth",
        ),
        (
            "bit_depth",
            "defence.mine.purifier=bit_depth: expected a weights file or one of classifier, autoencoder, s2snet, "
            "adversarial; a purifier without weights is written {name: bit_depth}",
        ),
    ],
)
def test_what_is_no_purifier_is_one_line(purifier, line):
    with pytest.raises(ValueError) as error:
        job_of(*RANDOM, f"+defence.mine.purifier={purifier}")
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["+defence.mine.purifyer=x"],
            "unknown setting defence.mine.purifyer (did you mean 'purifier'?): allowed here",
        ),
        (["+defence.mine=file"], "defence.mine=file: expected keys of a defence, such as +defence.mine.purifier=FILE"),
        (
            ["defence.mine.purifier=x"],
            "unknown setting defence.mine (did you mean 'none'?): +defence.mine.purifier=PURIFIER adds a defence",
        ),
        (
            ["defence=[mine]"],
            "defence=mine (did you mean 'none'?): allowed are adversarial, autoencoder, bit_depth, neutralised, "
            "neutralised_per_input, none, s2snet, subspace; +defence.mine.purifier=PURIFIER, without mine in "
            "defence=[...], adds your own",
        ),
    ],
)
def test_a_defence_that_cannot_be_added_is_one_line(words, line, capsys):
    with pytest.raises(SystemExit):
        cli_messages.run(lambda: job_of("classifier.weights=random", *words))
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {line}")


def rewritten(path, without: str, to) -> None:
    """Write the weights file without one key of its header."""
    header = weights.read_header(path)
    del header[without]
    to.write_bytes(serialise(load_file(path), metadata={"s2snet": json.dumps(header)}))


RELEASED = paths.released() / "digits"
KEYS = sorted(
    set(weights.read_header(RELEASED / "classifier-small_cnn.safetensors"))
    | set(weights.read_header(RELEASED / "s2snet-segnet_small-small_cnn.safetensors"))
)


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_lacks_a_key_of_the_header_is_a_defence_all_the_same(key, tmp_path):
    classifier = RELEASED / "classifier-small_cnn.safetensors"
    purifier = RELEASED / "s2snet-segnet_small-small_cnn.safetensors"
    given = []
    for role, path in (("classifier", classifier), ("purifier", purifier)):
        if key in weights.read_header(path):
            rewritten(path, key, tmp_path / f"{role}.safetensors")
            path = tmp_path / f"{role}.safetensors"
        given.append(f"+defence.mine.{role}={path}")

    def mine():
        config = settings.evaluate_settings(composed("evaluate", "defence=[none]", f"weights={RELEASED}", *given))
        return named_job(config, "", "", explicit=True, say=lambda text: None).defences[1]

    if key in KEPT:
        with pytest.raises(ValueError, match=r"a .safetensors file, but not one that s2snet wrote \(no header\)$"):
            mine()
        return
    mine = mine()
    assert mine.about.startswith("small_cnn") and " behind segnet_small" in mine.about
    assert ("stage" in mine.about) == (key != "stage")


def test_what_the_python_interface_writes_is_a_defence_of_the_command(tmp_path):
    """A purifier that `train_purifier` trained, and one that was saved by hand; before a classifier saved by hand."""
    splits = data.load("digits", size=16)
    torch.manual_seed(0)
    classifier = build("small_cnn", widths=[4, 8]).eval()
    weights.save(classifier, tmp_path / "classifier.safetensors")
    weights.save(build("segnet_small", widths=[4], convs=[1]), tmp_path / "by_hand.safetensors")
    s2snet.train_purifier(
        classifier,
        (splits.train.images[:40], splits.train.labels[:40]),
        output=tmp_path / "trained",
        options={"widths": [4], "convs": [1]},
        stage1={"epochs": 1},
        stage2={"epochs": 1},
        device="cpu",
        progress=False,
    )
    trained = tmp_path / "trained/s2snet/weights.safetensors"
    words = [f"+defence.{name}.classifier={tmp_path}/classifier.safetensors" for name in ("by_hand", "trained")]
    words += [f"+defence.by_hand.purifier={tmp_path}/by_hand.safetensors", f"+defence.trained.purifier={trained}"]
    folder, _ = evaluate(*RANDOM, *FEW, *words)
    defences = {given["name"]: given for given in json.loads((folder / "run.json").read_text())["defences"]}
    assert defences["by_hand"]["about"] == "small_cnn behind segnet_small"
    assert defences["trained"]["about"] == "small_cnn behind segnet_small (stage 2)"
    assert {row["route"] for row in rows(folder, defence="trained", threat="white_box")} >= {"exact", "identity"}
    assert {line["status"] for line in lines(folder)} == {"done"}
