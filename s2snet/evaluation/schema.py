"""Define a result on disk: the row, the table and the folder. Imports no torch.

A *row* is one image of one cell before one judge. Everything that reads results (scores, report, audit) depends on this
file and on nothing else of the evaluation.

    results/NAME/
      config.yaml            the configuration, resolved
      run.json               what was evaluated: data, defences, cells with their status, notes
      ledger/                what was crafted and judged (evaluation/ledger.py)
      rows.parquet           ROW_SCHEMA, sorted by SORT_ORDER
      table.csv              TABLE_COLUMNS: accuracies with their intervals
      measures.csv           MEASURE_COLUMNS: everything else that was measured, one number per line
      curves.csv             CURVE_COLUMNS: accuracy against the size of the perturbation
      samples.safetensors    the images of the explorer (see SAMPLES)
      probes.json            what was measured of each defence for the audit (audit/probes)
      audit.json             the findings of the checks (audit/checks); audit.html shows them to a reviewer
      timing.jsonl           seconds and passes; the only file that differs between two equal runs
      figures/  report.html
"""

import pyarrow as pa

SCHEMA_VERSION = 2

# The measured part of a row: what the ledger keeps for each (crafted cell, judge).
MEASURED = [
    ("image", pa.int64()),  # index in the data set's own order
    ("label", pa.int32()),
    ("prediction", pa.int32()),  # -1 if the judge's logits have a NaN or an infinity
    ("correct", pa.bool_()),  # false for -1
    ("confidence", pa.float32()),  # softmax probability of the prediction
    ("margin", pa.float32()),  # logit of the label minus the best other logit; above 0 means correct
    ("linf", pa.float64()),  # distances to the clean image, computed in float64
    ("l2", pa.float64()),
    ("l1", pa.float64()),
    ("l2_normalised", pa.float64()),  # ||x' - x||_2 / ||x||_2 in [0, 1] pixels
    ("l2_standardised", pa.float64()),  # the same after subtracting the data's mean and dividing by its std
    ("purified_pixel", pa.float32()),  # ||A(x') - x'||_2, 0 for the identity
    ("purified_signal", pa.float32()),  # ||A(x') - A(x)||_2
    ("psnr", pa.float32()),  # of A(x') clipped to [0, 1] against x', in dB; only for clean rows of a purifier
    ("ssim", pa.float32()),  # likewise; also null for images smaller than its window of 11 pixels
    ("target", pa.int32()),  # the class that the attack aims at; -1 if it is untargeted
    ("forwards", pa.int32()),  # passes through the source for crafting this image
    ("backwards", pa.int32()),
]

# The naming part: which cell, before which judge.
NAMING = [
    ("crafted", pa.string()),  # key of the crafted cell; empty for clean rows
    ("judge", pa.string()),  # fingerprint of the judging module
    ("defence", pa.string()),  # the judge's name
    ("threat", pa.string()),  # CLEAN, gray_box, white_box, ...
    ("source", pa.string()),  # the defence whose gradients were taken ("none": the bare classifier)
    ("route", pa.string()),
    ("attack", pa.string()),
    ("norm", pa.string()),  # linf, l2, l1; empty for clean rows
    ("budget", pa.float64()),  # eps in [0, 1] pixel units; 0 for clean rows; infinite for a minimal attack
    ("seed", pa.int32()),  # of the random numbers; -1 if there are none and the rows count for every seed
]

ROW_SCHEMA = pa.schema(NAMING + MEASURED)
MEASURED_SCHEMA = pa.schema(MEASURED)
SORT_ORDER = ("defence", "threat", "source", "route", "attack", "norm", "budget", "seed", "crafted", "image")

LABEL = ("defence", "threat", "route", "attack", "norm", "budget")  # identifies a line

TABLE_COLUMNS = (
    *LABEL,  # budget "inf": a minimal attack without a limit
    "accuracy",  # over all selected images, in [0, 1]; mean over seeds; empty if the cell failed
    "low",  # 95 % Wilson interval over images
    "high",
    "images",  # n, the denominator of accuracy
    "success",  # attack success rate: share fooled of the images that are correct without an attack
    "clean_correct",  # the denominator of success
    "distance",  # minimal attacks: median distance over the clean-correct images; a failure counts as infinite
    "reached",  # targeted attacks: share of all images that the judge classifies as the target
    "seeds",  # number of seeds that accuracy is averaged over
    "spread",  # largest minus smallest accuracy over the seeds; empty for one seed
    "audit",  # the verdict on the defence: PASS, WARN(n), FAIL(n), OFF; empty before the audit
    "status",  # done, "failed: reason", or "incomplete: what is missing" for a worst case
)

MEASURE_COLUMNS = (
    *LABEL,
    "measure",  # a name in MEASURES
    "class",  # the class it is measured on; empty for all
    "value",
    "images",  # number of images
)

MEASURES = {
    "accuracy": "per class, without an attack and in the worst case of each budget",
    "clean_cost": "accuracy lost without an attack against the undefended classifier",
    "psnr": "mean over clean images of the purifier's peak signal-to-noise ratio, dB",
    "ssim": "mean over clean images of the purifier's structural similarity",
    "purified_pixel": "median ||A(x') - x'||_2",
    "purified_signal": "median ||A(x') - A(x)||_2",
    "changed": "foreign images: how many of the file lie within the budget and count; the others are left clean",
    "linf": "mean ||x' - x||_inf",
    "l2_normalised": "mean ||x' - x||_2 / ||x||_2 in [0, 1] pixels, over all images",
    "l2_normalised_turned": "the same over the images that were fooled",
    "l2_standardised": "mean ||x' - x||_2 / ||x||_2 after standardising by the data's mean and std, over all images",
}

CURVE_COLUMNS = (
    "defence",
    "threat",  # or WORST_CASE for all of them
    "distance",  # one of CURVE_DISTANCES
    "at",  # its value
    "accuracy",  # share of all images that no perturbation found at that distance or less fools
    "images",
)
CURVE_DISTANCES = ("linf", "l2", "l2_normalised", "l2_standardised")

CLEAN = "clean"  # the threat of rows without an attack
USUAL_BUDGET = 8 / 255  # the radius of most published Linf results
WORST_CASE = "worst_case"  # as threat, route or attack: the minimum per image over all of them

# Keys of samples.safetensors. All tensors float32 [n, C, H, W] for the same n images.
SAMPLES = {
    "image": "int64 [n], indices into the data set",
    "clean": "the untouched images",
    "adversarial/CRAFTED": "the same images after that cell's attack",
    "purified/CRAFTED/JUDGE": "those after the judge's purifier; absent if it has none",
    "purified/clean/JUDGE": "the clean images after the judge's purifier",
}
