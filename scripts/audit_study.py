"""What the audit is worth: does it catch broken defences, and does it leave sound ones alone?

    python scripts/audit_study.py gallery              the gallery of tests/audit, entry by check
    python scripts/audit_study.py sound                sound models of ten training seeds: how often a check alarms
    python scripts/audit_study.py sound full           the same with audit=full and the default attacks, at 8/255
    python scripts/audit_study.py said RESULT ...      what is said of the defences of these result folders

Prints a summary and writes docs/results/audit/gallery.csv, false_alarms.csv, false_alarms_full.csv and s2snets.csv.
On one thread.
"""

import csv
import inspect
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "audit")]

import gallery  # noqa: E402

import s2snet  # noqa: E402
from s2snet import data, models  # noqa: E402
from s2snet.attacks import ATTACKS, fgsm  # noqa: E402
from s2snet.audit import checks  # noqa: E402
from s2snet.audit.checks.finding import FAIL, ORDER, PASS, WARN  # noqa: E402
from s2snet.audit.probes.measure import measure  # noqa: E402
from s2snet.config.evaluation import evaluation_of  # noqa: E402
from s2snet.config.runtime import Trainer  # noqa: E402
from s2snet.evaluation.job import Job  # noqa: E402
from s2snet.evaluation.run import run  # noqa: E402
from s2snet.models import Defended  # noqa: E402
from s2snet.store import weights  # noqa: E402
from s2snet.store.defences import Defence  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "audit"
SEEDS = range(10)
EPOCHS, BATCH, LR = 4, 32, 0.01
SHORT = {PASS: ".", WARN: "w", FAIL: "F"}


def of_gallery() -> None:
    """Prints and writes the worst verdict of each check on each entry."""
    entries = gallery.BROKEN | gallery.SOUND
    ATTACKS.update(gallery.IDLE)
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, result in gallery.evaluated(entries, Path(folder), gallery.Released()).items():
            said = verdicts(result, name)
            rows.append({"entry": name, "meant": entries[name].caught_by, **said})
            if entries[name].caught_by and said[entries[name].caught_by] not in (entries[name].verdict, FAIL):
                missed.append(name)
    write("gallery.csv", rows)
    for place, check in enumerate(checks.CHECKS):
        print(f"{place:2}  {check}")
    print(" " * 28 + "".join(f"{place:3}" for place in range(len(checks.CHECKS))))
    for row in rows:
        print(f"{row['entry']:28}" + "".join(f"{SHORT.get(row[check], ' '):>3}" for check in checks.CHECKS))
    print(f"{len(gallery.BROKEN) - len(missed)} of {len(gallery.BROKEN)} caught by their check; missed: {missed}")


def of_sound(audit: str = "quick") -> None:
    """Prints how often each check alarms on sound models; writes every pair."""
    rows = []
    attacks = {name: {} for name in inspect.signature(s2snet.evaluate).parameters["attacks"].default}
    more = {} if audit == "quick" else {"audit": audit, "attacks": attacks, "budgets": {"linf": [8 / 255]}}
    splits = data.load("digits")
    for seed in SEEDS:
        made = {
            "plain": trained(small_cnn, splits.train, seed),
            "adversarial": trained(small_cnn, splits.train, seed, adversarial=True),
            "linear": trained(linear, splits.train, seed),
        }
        with tempfile.TemporaryDirectory() as folder:
            result = run(job(made, splits, Path(folder), **more), print, probe=measure)
            checks.write(result)
            for name in made:
                rows += [
                    {"seed": seed, "model": name, "check": f.check, "verdict": f.verdict, "evidence": f.evidence}
                    for f in checks.findings(result)
                    if f.defence in (name, "")
                ]
        print(
            f"seed {seed}: " + "; ".join(alarm(row) for row in rows if row["seed"] == seed and alarm(row)), flush=True
        )
        write("false_alarms.csv" if audit == "quick" else f"false_alarms_{audit}.csv", rows)
    asked = [row for row in rows if row["verdict"] in SHORT]
    alarms = Counter(row["check"] for row in asked if row["verdict"] != PASS)
    pairs, wrong = len(asked), sum(alarms.values())
    print(f"{wrong} of {pairs} check-model pairs alarm: {wrong / pairs:.2%}; {dict(alarms)}")


def alarm(row: dict) -> str:
    return (
        f"{row['model']} {row['verdict']} {row['check']}: {row['evidence']}" if row["verdict"] in (WARN, FAIL) else ""
    )


def said_of(*folders: str) -> None:
    """Writes what is said of each defence of these result folders."""
    rows = []
    for folder in map(Path, folders):
        for finding in checks.findings(folder):
            rows.append({"result": folder.name, **{key: getattr(finding, key) for key in FINDING}})
    write("s2snets.csv", rows)
    for row in rows:
        if row["verdict"] in (WARN, FAIL):
            said = f"{row['verdict']:4} {row['check']} [{row['part']}]: {row['evidence']}"
            print(f"{row['result']:12} {row['defence']:12} {said}")


FINDING = ("defence", "check", "verdict", "part", "evidence")


def verdicts(result: Path, name: str) -> dict[str, str]:
    """{check: its worst verdict on a defence, empty where it said nothing}."""
    found = [finding for finding in checks.findings(result) if finding.defence in (name, "")]
    worst = {check: [f.verdict for f in found if f.check == check] for check in checks.CHECKS}
    return {check: min(said, key=ORDER.index, default="") for check, said in worst.items()}


def small_cnn() -> nn.Module:
    return models.build("small_cnn")


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))


def trained(build, train, seed: int, adversarial: bool = False) -> nn.Module:
    """A classifier after a few epochs of Adam, on FGSM images half of the time where `adversarial`."""
    torch.manual_seed(seed)
    model = build()
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(train), generator=draw).split(BATCH):
            images, labels = train.images[batch], train.labels[batch]
            if adversarial:
                moved = fgsm(model.eval(), images, labels, eps=gallery.EPS)
                images, labels = torch.cat([images, moved]), labels.repeat(2)
            loss = functional.cross_entropy(model.train()(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def job(classifiers: dict[str, nn.Module], splits: data.Splits, output: Path, **changed) -> Job:
    """The gallery's attacks on classifiers without a purifier."""
    modules = {name: Defended(None, classifier) for name, classifier in classifiers.items()}
    options = {
        "threats": {"white_box": {"routes": ["exact"], **gallery.ROUTES}},
        "attacks": gallery.PGD,
        "budgets": {"linf": [gallery.EPS]},
        "samples": 0,
        "trainer": Trainer(accelerator="cpu", progress=False),
    }
    return Job(
        config=evaluation_of(**(options | changed)),
        name="digits",
        images=splits.test,
        train=splits.train,
        defences=[
            Defence(name, name, module, [], weights.fingerprint(module), "sound") for name, module in modules.items()
        ],
        output=output,
    )


def write(name: str, rows: list[dict]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / name, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {(RESULTS / name).relative_to(ROOT)}")


WAYS = {"gallery": of_gallery, "sound": of_sound, "said": said_of}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in WAYS:
        sys.exit(__doc__.strip())
    torch.set_num_threads(1)
    WAYS[sys.argv[1]](*sys.argv[2:])
