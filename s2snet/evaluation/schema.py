"""What a result on disk looks like: the row, the table and the folder. Imports no torch.

A *row* is one image of one cell before one judge. Everything that reads results (scores, report, audit)
knows this file and nothing else of the evaluation.

    results/NAME/
      config.yaml            the settings, resolved
      run.json               what was evaluated: data, defences, cells with their status, notes
      ledger/                what was crafted and judged (evaluation/ledger.py)
      rows.parquet           ROW_SCHEMA, sorted by SORT_ORDER
      table.csv              TABLE_COLUMNS: accuracies with their intervals
      measures.csv           MEASURE_COLUMNS: everything else that was measured, one figure a line
      curves.csv             CURVE_COLUMNS: accuracy against the size of the perturbation
      samples.safetensors    the images of the explorer (see SAMPLES)
      probes.json            what was measured of each defence for the audit (audit/probes)
      audit.json             the findings of the checks (audit/checks); audit.html shows them to a reviewer
      timing.jsonl           seconds and passes; the one file that differs between two equal runs
      figures/  report.html
"""

import pyarrow as pa

SCHEMA_VERSION = 2

# The measured part of a row: what the ledger keeps for each (crafted cell, judge).
MEASURED = [
    ("image", pa.int64()),  # index in the data set's own order
    ("label", pa.int32()),
    ("prediction", pa.int32()),  # -1 where the judge answered with a NaN or an infinity
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
    ("psnr", pa.float32()),  # of A(x') clipped to [0, 1] against x', in dB; null but for clean rows of a purifier
    ("ssim", pa.float32()),  # likewise; also null for images smaller than its window of 11 pixels
    ("target", pa.int32()),  # the class that the attack was to reach; -1 for an untargeted one
    ("forwards", pa.int32()),  # passes through the source that crafting this image took
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
    ("seed", pa.int32()),  # of the random numbers; -1 where there are none and the rows serve every seed
]

ROW_SCHEMA = pa.schema(NAMING + MEASURED)
MEASURED_SCHEMA = pa.schema(MEASURED)
SORT_ORDER = ("defence", "threat", "source", "route", "attack", "norm", "budget", "seed", "crafted", "image")

LABEL = ("defence", "threat", "route", "attack", "norm", "budget")  # what names a line

TABLE_COLUMNS = (
    *LABEL,  # budget "inf": a minimal attack without a limit
    "accuracy",  # over all selected images, in [0, 1]; mean over seeds; empty where the cell failed
    "low",  # 95 % Wilson interval over images
    "high",
    "images",  # n, the denominator of accuracy
    "success",  # attack success rate: share turned of the images that are right without an attack
    "clean_correct",  # the denominator of success
    "distance",  # minimal attacks: median distance over the clean-correct images, a failure counting as infinite
    "reached",  # targeted attacks: share of all images that the judge takes for the target
    "seeds",  # over how many seeds accuracy is the mean
    "spread",  # largest minus smallest accuracy over the seeds; empty for one seed
    "audit",  # the verdict on the defence: PASS, WARN(n), FAIL(n), OFF; empty until it was audited
    "status",  # done, "failed: reason", or "incomplete: what is missing" for a worst case
)

MEASURE_COLUMNS = (
    *LABEL,
    "measure",  # a name in MEASURES
    "class",  # the class it is taken over; empty for all
    "value",
    "images",  # over how many images
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
    "l2_normalised_turned": "the same over the images that were turned",
    "l2_standardised": "mean ||x' - x||_2 / ||x||_2 with the data's mean and std taken out, over all images",
}

CURVE_COLUMNS = (
    "defence",
    "threat",  # or WORST_CASE for all of them
    "distance",  # one of CURVE_DISTANCES
    "at",  # its value
    "accuracy",  # share of all images that no image found at that distance or nearer turns
    "images",
)
CURVE_DISTANCES = ("linf", "l2", "l2_normalised", "l2_standardised")

CLEAN = "clean"  # the threat of rows without an attack
USUAL_BUDGET = 8 / 255  # the radius of most published Linf results
AUDITS = ("off", "quick", "full")  # run.json's `audit`: which probes were measured for the audit
WORST_CASE = "worst_case"  # as threat, route or attack: the minimum per image over all of them

# Keys of samples.safetensors. All tensors float32 [n, C, H, W] for the same n images.
SAMPLES = {
    "image": "int64 [n], indices into the data set",
    "clean": "the untouched images",
    "adversarial/CRAFTED": "the same images as that cell left them",
    "purified/CRAFTED/JUDGE": "those after the judge's purifier; absent where it has none",
    "purified/clean/JUDGE": "the clean images after the judge's purifier",
}
