"""Measure how well the audit works: whether it catches broken defences and raises no alarm on sound ones.

    python scripts/audit_study.py gallery              the gallery of tests/audit, entry by check
    python scripts/audit_study.py sound                sound models of ten training seeds: how often a check alarms
    python scripts/audit_study.py sound full           the same with audit=full and the default attacks, at 8/255
    python scripts/audit_study.py findings RESULT ...  the findings on the defences of these result folders

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
    """Print and write the worst verdict of each check on each entry."""
    entries = gallery.BROKEN | gallery.SOUND
    ATTACKS.update(gallery.IDLE)
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, result in gallery.evaluated(entries, Path(folder), gallery.Released()).items():
            by_check, meant = verdicts(result, name), entries[name].caught_by
            rows.append({"entry": name, "meant": meant, **by_check})
            if meant and by_check[meant] not in (entries[name].verdict, FAIL):
                missed.append(name)
    write("gallery.csv", rows)
    for place, check in enumerate(checks.CHECKS):
        print(f"{place:2}  {check}")
    print(" " * 28 + "".join(f"{place:3}" for place in range(len(checks.CHECKS))))
    for row in rows:
        print(f"{row['entry']:28}" + "".join(f"{SHORT.get(row[check], ' '):>3}" for check in checks.CHECKS))
    print(f"{len(gallery.BROKEN) - len(missed)} of {len(gallery.BROKEN)} caught by their check; missed: {missed}")


def of_sound(audit: str = "quick") -> None:
    """Print how often each check alarms on sound models; write every pair."""
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
    applied = [row for row in rows if row["verdict"] in SHORT]
    alarms = Counter(row["check"] for row in applied if row["verdict"] != PASS)
    pairs, wrong = len(applied), sum(alarms.values())
    print(f"{wrong} of {pairs} check-model pairs alarm: {wrong / pairs:.2%}; {dict(alarms)}")


def alarm(row: dict) -> str:
    return (
        f"{row['model']} {row['verdict']} {row['check']}: {row['evidence']}" if row["verdict"] in (WARN, FAIL) else ""
    )


def of_results(*folders: str) -> None:
    """Print and write the findings on each defence of these result folders."""
    rows = []
    for folder in map(Path, folders):
        for finding in checks.findings(folder):
            rows.append({"result": folder.name, **{key: getattr(finding, key) for key in FINDING}})
    write("s2snets.csv", rows)
    for row in rows:
        if row["verdict"] in (WARN, FAIL):
            finding = f"{row['verdict']:4} {row['check']} [{row['part']}]: {row['evidence']}"
            print(f"{row['result']:12} {row['defence']:12} {finding}")


FINDING = ("defence", "check", "verdict", "part", "evidence")


def verdicts(result: Path, name: str) -> dict[str, str]:
    """Return {check: its worst verdict on a defence, empty if it gave none}."""
    findings = [finding for finding in checks.findings(result) if finding.defence in (name, "")]
    of_check = {check: [f.verdict for f in findings if f.check == check] for check in checks.CHECKS}
    return {check: min(found, key=ORDER.index, default="") for check, found in of_check.items()}


def small_cnn() -> nn.Module:
    return models.build("small_cnn")


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))


def trained(build, train, seed: int, adversarial: bool = False) -> nn.Module:
    """Return a classifier after a few epochs of Adam; if `adversarial`, half of its images are from FGSM."""
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
    """Return the job of the gallery's attacks on classifiers without a purifier."""
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


STUDIES = {"gallery": of_gallery, "sound": of_sound, "findings": of_results}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STUDIES:
        sys.exit(__doc__.strip())
    torch.set_num_threads(1)
    STUDIES[sys.argv[1]](*sys.argv[2:])
