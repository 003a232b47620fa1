"""A whole evaluation of tiny networks: its files, what it does not repeat, and what faults cost."""

import csv
import errno
import json
import os
import re
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from jobs import SIDE, Blur, Linear, crafted, defence, evaluated, files, gray_box, pictures, white_box
from tiny import evaluate, forked, job_of, kill_self
from torch.nn import functional

from s2snet.attacks import ATTACKS, Noise, Passes
from s2snet.cli import messages as cli_messages
from s2snet.config.runtime import Trainer
from s2snet.evaluation import ledger as keeping
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.schema import CLEAN, ROW_SCHEMA, SORT_ORDER, TABLE_COLUMNS, WORST_CASE
from s2snet.evaluation.scores import read_table
from s2snet.store import weights


class Dim(torch.nn.Module):
    """A purifier: darker, smoother images."""

    def forward(self, images):
        return 0.9 * functional.avg_pool2d(images, 3, 1, 1) + 0.05


DEFENCES = {
    "none": defence("none"),
    "autoencoder": defence("autoencoder", Blur()),
    "s2snet": defence("s2snet", Dim()),
    "adversarial": defence("adversarial", classifier=Linear(5)),
}
THREATS = gray_box() | white_box("exact", "identity")
SMALL = {
    "images": pictures(24),
    "defences": list(DEFENCES.values()),
    "chunk": 10,
    "threats": THREATS,
    "attacks": {"fgsm": {}, "pgd": {"steps": 3}},
    "budgets": {"linf": [0.1], "l2": [1.0]},
}
QUICK = SMALL | {"attacks": {"pgd": {"steps": 3}}, "budgets": {"linf": [0.1]}, "samples": 2}


def chosen(*names: str) -> list:
    return [DEFENCES[name] for name in names]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of SMALL. Not to be written to."""
    return evaluated(tmp_path_factory.mktemp("whole") / "r", **SMALL)[0]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The result of QUICK. Not to be written to."""
    return evaluated(tmp_path_factory.mktemp("quick") / "r", **QUICK)[0]


def test_rows_are_the_schema_sorted_and_complete(whole):
    rows = pq.read_table(whole / "rows.parquet")
    assert rows.schema.equals(ROW_SCHEMA)
    assert rows.sort_by([(column, "ascending") for column in SORT_ORDER]).equals(rows)
    # clean: 4 judges. gray box: 4 judges. white box: none, adversarial by 1 route, autoencoder, s2snet by 2.
    assert len(rows) == 24 * (4 + (4 + 1 + 1 + 2 + 2) * 2 * 2)
    assert rows["correct"].to_pylist() == [
        p == t for p, t in zip(rows["prediction"].to_pylist(), rows["label"].to_pylist(), strict=True)
    ]
    for norm in ("linf", "l2"):
        of_norm = rows.filter(pc.equal(rows["norm"], norm))
        distance, budget = (of_norm[column].to_numpy() for column in (norm, "budget"))
        assert (distance <= budget).all()
        assert np.median(distance / budget) > 0.5


def test_the_command_evaluates_what_was_trained_and_clean_rows_are_the_networks_own_predictions(trained):
    """The one run of this file from the command's words: every defence by its weights."""
    from s2snet import data

    words = ["images=24", "chunk=10", "threat.white_box.routes=[exact,identity]", "attack=[fgsm]", "samples=3"]
    folder, _ = evaluate(*words, "budgets.linf=[0.1]", "budgets.l2=[]", f"runs={trained}", "output=r")
    test = data.load("digits", size=16).test
    module = weights.load(trained / "digits/classifier-small_cnn/weights.safetensors")
    with torch.no_grad():
        logits = module(test.images[:24])
    rows = pq.read_table(folder / "rows.parquet", filters=[("threat", "=", CLEAN), ("defence", "=", "none")])
    assert rows["image"].to_pylist() == test.index[:24].tolist()
    assert rows["label"].to_pylist() == test.labels[:24].tolist()
    assert rows["prediction"].to_pylist() == logits.argmax(dim=1).tolist()
    confidence = logits.softmax(dim=1).amax(dim=1).numpy()
    np.testing.assert_allclose(rows["confidence"].to_numpy(), confidence, rtol=1e-4)
    assert set(rows["linf"].to_pylist()) == set(rows["purified_pixel"].to_pylist()) == {0.0}
    attacked = pq.read_table(folder / "rows.parquet", filters=[("threat", "=", "white_box")])
    assert set(attacked["defence"].to_pylist()) == {"none", "autoencoder", "s2snet", "adversarial"}
    before = crafted(folder)
    assert crafted(evaluate(*words, "budgets.linf=[0.1]", "budgets.l2=[]", f"runs={trained}", "output=r")[0]) == before


def test_table_has_its_columns_and_a_line_for_every_cell(whole):
    with open(whole / "table.csv") as file:
        assert tuple(next(csv.reader(file))) == TABLE_COLUMNS
    lines = read_table(whole / "table.csv")
    assert {line["status"] for line in lines} == {"done"}
    assert {line["images"] for line in lines} == {24}
    labels = {(line["defence"], line["threat"], line["route"], line["attack"], line["norm"]) for line in lines}
    assert len(labels) == len(lines)
    assert ("s2snet", "white_box", "identity", "pgd", "l2") in labels
    assert ("s2snet", WORST_CASE, WORST_CASE, WORST_CASE, "linf") in labels
    for line in lines:
        assert line["low"] <= line["accuracy"] <= line["high"]


def test_the_worst_case_is_per_image_over_everything(whole):
    rows = pq.read_table(whole / "rows.parquet").to_pylist()
    lines = read_table(whole / "table.csv")
    for line in lines:
        if line["threat"] != WORST_CASE:
            continue
        here = [
            row
            for row in rows
            if row["defence"] == line["defence"]
            and (row["threat"] == CLEAN or (row["norm"], row["budget"]) == (line["norm"], line["budget"]))
        ]
        wrong = {row["image"] for row in here if not row["correct"]}
        assert line["accuracy"] == pytest.approx(1 - len(wrong) / 24, abs=1e-6)
        cells = [other for other in lines if all(other[k] == line[k] for k in ("defence", "norm", "budget"))]
        assert len(cells) > 4
        assert all(line["accuracy"] <= other["accuracy"] for other in cells)
    worst = {line["defence"]: line["accuracy"] for line in lines if line["threat"] == WORST_CASE}
    assert min(worst.values()) < 0.5  # the attacks do something


def test_a_second_run_crafts_nothing_and_reports_the_same(whole):
    before, timing, written = files(whole), crafted(whole), os.stat(whole / "timing.jsonl").st_mtime_ns
    again, messages = evaluated(whole, **SMALL, trainer=Trainer(progress=False, workers=1))
    assert files(again) == before
    assert crafted(again) == timing
    assert os.stat(whole / "timing.jsonl").st_mtime_ns == written
    assert not messages
    cells = {cell["crafted"] for cell in json.loads((whole / "run.json").read_text())["cells"]}
    assert sorted(timing) == sorted((key, chunk) for key in cells for chunk in range(3))


def test_passes_are_counted_and_gray_box_never_leaves_early(whole):
    rows = pq.read_table(whole / "rows.parquet").to_pylist()
    passes = {}
    for row in rows:
        if row["attack"] == "pgd":
            passes.setdefault((row["threat"], row["defence"], row["route"]), []).append(row["forwards"])
    for (threat, name, _), forwards in passes.items():
        if threat == "gray_box" or name == "none":  # images that others judge too take all steps
            assert set(forwards) == {4}, (threat, name)
        else:
            assert min(forwards) < 4, (threat, name)
    cells = json.loads((whole / "run.json").read_text())["cells"]
    early = {(cell["threat"], cell["source"]): cell["leave_early"] for cell in cells}
    assert {key for key, leaves in early.items() if not leaves} == {("gray_box", "none"), ("white_box", "none")}


def test_leaving_early_makes_no_defence_look_better(quick, monkeypatch):
    """For its sole judge, the image that left fools all the same."""
    from s2snet.evaluation import plan

    monkeypatch.setattr(plan, "deterministic", lambda module, images: False)
    patient, _ = evaluated(**QUICK)
    accuracy = [
        {
            (line["defence"], line["threat"], line["route"]): line["accuracy"]
            for line in read_table(folder / "table.csv")
        }
        for folder in (quick, patient)
    ]
    for key, value in accuracy[0].items():
        assert value <= accuracy[1][key] + 1e-9, key


def test_a_defence_that_comes_later_crafts_no_gray_box_again():
    two, three = chosen("none", "adversarial"), chosen("none", "adversarial", "s2snet")
    evaluated(**QUICK | {"defences": two})
    before = crafted(evaluated(**QUICK | {"defences": two})[0])
    folder, _ = evaluated(**QUICK | {"defences": three})
    after = crafted(folder)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    added = {key for key, _ in after} - {key for key, _ in before}
    cells = json.loads((folder / "run.json").read_text())["cells"]
    assert added == {cell["crafted"] for cell in cells if cell["source"] == "s2snet"}
    fresh, _ = evaluated("fresh", **QUICK | {"defences": three})
    assert files(folder) == files(fresh)


def test_an_attack_that_comes_later_or_earlier_crafts_no_other_again():
    before = crafted(evaluated(**QUICK | {"attacks": {"fgsm": {}}})[0])
    folder, _ = evaluated(**QUICK | {"attacks": {"bim": {}, "fgsm": {}}})
    after = crafted(folder)
    assert after[: len(before)] == before and len(set(after)) == len(after) == 2 * len(before)
    fresh, _ = evaluated("fresh", **QUICK | {"attacks": {"fgsm": {}, "bim": {}}})
    assert files(folder) == files(fresh)


def test_more_images_use_the_chunks_that_are_there(quick):
    evaluated(**QUICK, count=12)
    folder, _ = evaluated(**QUICK)
    assert files(folder) == files(quick)
    assert sum(chunk == 0 for _, chunk in crafted(folder)) == sum(chunk == 0 for _, chunk in crafted(quick))
    timing = crafted(folder)
    fewer, _ = evaluated(**QUICK, count=12)
    assert crafted(fewer) == timing
    assert len(pq.read_table(fewer / "rows.parquet", columns=["image"])) % 12 == 0


@pytest.mark.parametrize("written", [1, 9, 30])
def test_killed_in_mid_run_then_the_same_command(quick, written):
    """SIGKILL while a file of the ledger has its content but not yet its name."""

    def run():
        count = 0
        replace = os.replace

        def replace_or_die(*paths):
            nonlocal count
            count += 1
            if count == written:
                kill_self()
            replace(*paths)

        keeping.os.replace = replace_or_die
        evaluated(**QUICK)

    assert os.WTERMSIG(forked(run)) == 9
    assert not os.path.exists("r/table.csv")
    folder, _ = evaluated(**QUICK)
    assert files(folder) == files(quick)
    assert len(set(crafted(folder))) == len(crafted(folder))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def zeroed(path):
    """Overwrite with zeros of the same length, as a file system may leave a file after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


# The crafted images of chunk 2 are read again for the explorer's samples; those of chunk 1 are not read.
@pytest.mark.parametrize("spoil", [truncate, zeroed, empty])
@pytest.mark.parametrize("kind", ["crafted/*/00002.safetensors", "judged/*/*/00001.parquet"])
def test_damaged_files_are_reported_set_aside_and_redone(quick, tmp_path, spoil, kind):
    shutil.copytree(quick, "r")
    path = sorted((tmp_path / "r" / "ledger").glob(kind))[0]
    spoil(path)
    folder, messages = evaluated(**QUICK)
    shown = path.relative_to(tmp_path)
    assert messages == [f"damaged file moved aside and made again: {shown}"]
    assert path.with_name(path.name + ".damaged").is_file()
    assert path.is_file()
    assert files(folder) == files(quick)
    assert not evaluated(**QUICK)[1]


def test_two_runs_at_once_are_one_line():
    held = Ledger(keeping.Path("r/ledger"))
    try:
        with pytest.raises(ValueError) as error:
            evaluated(**QUICK)
    finally:
        held.close()
    assert str(error.value) == "r/ledger is in use by another run; wait for it, or use another output=FOLDER"
    evaluated(**QUICK, count=2)


@pytest.mark.parametrize("call, at", [("fsync", 5), ("fsync", 20), ("replace", 7)])
def test_a_full_disk_is_one_line_and_loses_nothing(quick, monkeypatch, capsys, call, at):
    count, real = 0, getattr(os, call)

    def full(*words):
        nonlocal count
        count += 1
        if count >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(keeping.os, call, full)
        with pytest.raises(SystemExit) as ended:
            cli_messages.run(lambda: evaluated(**QUICK))
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: .*No space left on device", last), last
    assert not list(keeping.Path("r").rglob("*.part"))
    folder, _ = evaluated(**QUICK)
    assert files(folder) == files(quick)


def beyond(images, eps):
    x = (images.double() + eps).float()
    return torch.nextafter(x, torch.tensor(2.0)).clamp(0, 1)


BAD = {
    "beyond": (beyond, "outside the linf ball by up to"),
    "nan": (lambda images, eps: images * torch.nan, "images are NaN or infinite"),
    "box": (lambda images, eps: images - 0.01, "images are outside [0, 1]"),
    "shape": (
        lambda images, eps: images[:, :, :-1],
        f"expected images torch.float32 (10, 1, {SIDE}, {SIDE}), got torch.float32 (10, 1, {SIDE - 1}, {SIDE})",
    ),
    "batch": (lambda images, eps: images[:-1], f"got torch.float32 (9, 1, {SIDE}, {SIDE})"),
    "type": (lambda images, eps: images.double(), f"got torch.float64 (10, 1, {SIDE}, {SIDE})"),
    "raises": (lambda images, eps: 1 / 0, "ZeroDivisionError: division by zero"),
    "nothing": (lambda images, eps: None, ""),
}


def install(monkeypatch, returns) -> None:
    """An attack in place of fgsm that returns what it should not."""

    def fgsm(
        model, images, labels, *, eps, norm="linf", loss="cross_entropy", draws=1, noise: Noise | None = None,
        targets=None, leave_early=False, passes: Passes | None = None,
    ):  # fmt: skip
        return returns(images, eps) if len(images) else images

    fgsm.version, fgsm.norms, fgsm.minimal = 1, ("linf",), False
    monkeypatch.setitem(ATTACKS, "fgsm", fgsm)


@pytest.mark.parametrize("returns, reason", BAD.values(), ids=BAD)
def test_an_attack_that_breaks_the_rules_counts_for_nothing(monkeypatch, returns, reason):
    install(monkeypatch, returns)
    two = {"attacks": {"fgsm": {}, "pgd": {"steps": 3}}, "defences": chosen("none", "adversarial")}
    folder, messages = evaluated(**QUICK | two, count=20)
    failed = [cell for cell in json.loads((folder / "run.json").read_text())["cells"] if cell["status"] == "failed"]
    assert {cell["attack"] for cell in failed} == {"fgsm"}
    assert all(cell["reason"] and reason in cell["reason"] for cell in failed), failed
    assert [line for line in messages if line.startswith("failed: ") and reason in line]
    rows = pq.read_table(folder / "rows.parquet")
    assert set(rows["attack"].to_pylist()) == {"none", "pgd"}
    for line in read_table(folder / "table.csv"):
        if line["attack"] == "fgsm":
            assert line["accuracy"] is line["low"] is line["high"] is None
            assert line["status"].startswith("failed: ")
        elif line["threat"] == WORST_CASE:
            assert line["status"].startswith("incomplete: ")
            assert "fgsm failed" in line["status"]
        elif line["attack"] == "pgd":
            assert line["status"] == "done"


def test_a_chunk_that_fails_costs_the_accuracy_and_not_what_was_found(monkeypatch):
    """Two thirds of the images do not represent all of them; but images that were fooled still count."""
    broken = []

    def second_chunk(images, eps):
        if len(images) == 2:  # how the passes are counted
            return images
        broken.append(len(broken) == 1)
        return images * torch.nan if broken[-1] else 1 - images

    install(monkeypatch, second_chunk)
    given = {"attacks": {"fgsm": {}}, "budgets": {"linf": [1.0]}, "threats": gray_box()}
    given = QUICK | given | {"defences": chosen("none", "adversarial")}
    folder, messages = evaluated(**given)
    assert broken == [False, True, False]
    reason = "10 of 10 images are NaN or infinite (chunk 1; 1 of 3 chunks failed)"
    (failed,) = [line for line in messages if line.startswith("failed: ")]
    assert re.fullmatch(r"failed: gray_box none exact fgsm linf \S+: " + re.escape(reason), failed)
    rows = pq.read_table(folder / "rows.parquet").to_pylist()
    fgsm = [row for row in rows if row["attack"] == "fgsm" and row["defence"] == "none"]
    indices = sorted({row["image"] for row in rows})
    assert [row["image"] for row in fgsm] == indices[:10] + indices[20:]
    lines = read_table(folder / "table.csv")
    of_fgsm = [line for line in lines if line["attack"] == "fgsm"]
    assert [line["defence"] for line in of_fgsm] == ["adversarial", "none"]
    assert all(line["accuracy"] is None and line["status"] == f"failed: {reason}" for line in of_fgsm)
    wrong = {row["image"] for row in rows if row["defence"] == "none" and not row["correct"]}
    fooled = {row["image"] for row in fgsm if not row["correct"]}
    assert fooled - {row["image"] for row in rows if row["threat"] == CLEAN and not row["correct"]}
    (worst,) = [line for line in lines if line["threat"] == WORST_CASE and line["defence"] == "none"]
    assert worst["accuracy"] == pytest.approx(1 - len(wrong) / 24, abs=1e-6)
    assert worst["status"].startswith("incomplete: gray_box exact fgsm failed (10 of 10 images are NaN")

    before = crafted(folder)
    install(monkeypatch, lambda images, eps: images if len(images) == 2 else 1 - images)
    folder, messages = evaluated(**given)
    assert crafted(folder)[len(before) :] == [(before[0][0], 1)]  # the chunk that failed, and no other
    assert not messages
    lines = read_table(folder / "table.csv")
    assert {line["status"] for line in lines} == {"done"}
    assert all(line["accuracy"] < 1 for line in lines if line["attack"] == "fgsm")


def test_missing_weights_are_left_out_with_a_note_or_refused(trained):
    shutil.copytree(trained, "runs")
    shutil.rmtree("runs/digits/adversarial-small_cnn")
    missing = (
        "adversarial: no weights at runs/digits/adversarial-small_cnn/weights.safetensors; "
        "`python train.py stage=adversarial` makes them"
    )
    job, messages = job_of("attack=[fgsm]")
    assert f"left out: {missing}" in messages
    assert f"Left out: {missing}" in job.notes
    assert "adversarial" not in job.modules
    folder, _ = evaluated(**QUICK, count=2, notes=job.notes)
    assert json.loads((folder / "run.json").read_text())["notes"] == job.notes
    with pytest.raises(FileNotFoundError) as error:
        job_of("defence=[none,adversarial]", explicit=True)
    assert str(error.value) == missing


def test_a_purifier_of_another_classifier_is_noted(trained):
    first = trained / "digits/classifier-small_cnn/weights.safetensors"
    other = weights.load(first)
    header = weights.read_header(first)
    with torch.no_grad():
        other.head[1].bias += 0.01
    weights.save(other, "other.safetensors", stage="classifier", input=header["input"])
    words = ["attack=[fgsm]", f"runs={trained}", "defence=[s2snet]"]
    job, messages = job_of(*words, "defence.s2snet.classifier=other.safetensors")
    (note,) = [line for line in messages if "tuned to another classifier" in line]
    assert header["fingerprint"][:12] in note
    assert job.notes == [note.removeprefix("note: ")]
    job, messages = job_of(*words)
    assert not job.notes
    assert not [line for line in messages if "tuned" in line]


@pytest.mark.parametrize(
    "words, line",
    [
        (["defence.s2snet.purifier=nope"], "defence.s2snet.purifier=nope: expected a weights file or one of"),
        (["defence.s2snet.purifier=CLASSIFIER"], "holds a small_cnn; allowed are segnet, segnet_small"),
        (["data.size=20"], "defence s2snet was trained on data.size=16; here it is 20"),
        (["weights=nope"], "weights=nope: no such folder"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(trained, words, line):
    file = trained / "digits/classifier-small_cnn/weights.safetensors"
    words = [word.replace("CLASSIFIER", str(file)) for word in words]
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        job_of(f"runs={trained}", "defence=[s2snet]", *words)
    assert "\n" not in str(error.value)
