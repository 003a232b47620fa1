"""What a result on disk looks like: the row, the table and the folder. Imports no torch.

A *row* is one image of one cell before one judge. Everything that reads results (scores, report, audit)
knows this file and nothing else of the evaluation.

    results/NAME/
      config.yaml            the settings, resolved
      run.json               what was evaluated: data, defences, cells with their status, notes
      ledger/                what was crafted and judged (evaluation/ledger.py)
      rows.parquet           ROW_SCHEMA, sorted by SORT_ORDER
      table.csv              TABLE_COLUMNS
      samples.safetensors    the images of the explorer (see SAMPLES)
      timing.jsonl           seconds and passes; the one file that differs between two equal runs
      figures/  report.html
"""

import pyarrow as pa

SCHEMA_VERSION = 1

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
    ("purified_pixel", pa.float32()),  # ||A(x') - x'||_2, 0 for the identity
    ("purified_signal", pa.float32()),  # ||A(x') - A(x)||_2
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
    ("norm", pa.string()),  # linf, l2; empty for clean rows
    ("budget", pa.float64()),  # eps in [0, 1] pixel units; 0 for clean rows
]

ROW_SCHEMA = pa.schema(NAMING + MEASURED)
MEASURED_SCHEMA = pa.schema(MEASURED)
SORT_ORDER = ("defence", "threat", "source", "route", "attack", "norm", "budget", "crafted", "image")

TABLE_COLUMNS = (
    "defence",
    "threat",
    "route",
    "attack",
    "norm",
    "budget",
    "accuracy",  # over all selected images, in [0, 1]; empty where the cell failed
    "low",  # 95 % Wilson interval over images
    "high",
    "images",  # n, the denominator
    "status",  # done, "failed: reason", or "incomplete: what is missing" for a worst case
)

CLEAN = "clean"  # the threat of rows without an attack
WORST_CASE = "worst_case"  # as threat, route or attack: the minimum per image over all of them

# Keys of samples.safetensors. All tensors float32 [n, C, H, W] for the same n images.
SAMPLES = {
    "image": "int64 [n], indices into the data set",
    "clean": "the untouched images",
    "adversarial/CRAFTED": "the same images as that cell left them",
    "purified/CRAFTED/JUDGE": "those after the judge's purifier; absent where it has none",
    "purified/clean/JUDGE": "the clean images after the judge's purifier",
}
