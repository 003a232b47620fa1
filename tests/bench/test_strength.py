"""docs/results/benchmarks/strength.csv: every attack is there, on every model, and none is behind its target."""

import csv

from tiny import ROOT

with open(ROOT / "docs/results/benchmarks/strength.csv", newline="") as file:
    ROWS = list(csv.DictReader(file))
WITH_A_PEER = {
    **dict.fromkeys(("fgsm", "bim", "mim", "apgd-ce", "apgd-dlr", "apgd-t", "deepfool", "fmn"), ("linf", "l2")),
    "pgd": ("linf", "l2", "l1"),
    "ddn": ("l2",),
    "cw": ("l2",),
}


def test_no_row_is_behind_its_target():
    for row in ROWS:
        ours, best = float(row["ours"]), float(row["best_of_peers"])
        within = ours <= 1.02 * best if row["what"] == "median" else ours <= best + 2
        assert row["within_target"] == str(within) == "True", row
        assert row["ours_failed_or_outside"] == "0", row


def test_no_attack_that_another_library_has_is_left_out_on_any_model():
    known = {(row["model"], row["attack"], row["norm"]) for row in ROWS}
    assert known == {
        (model, attack, norm)
        for model in ("digits", "digits-s2snet", "cifar10-resnet20")
        for attack, norms in WITH_A_PEER.items()
        for norm in norms
    }
