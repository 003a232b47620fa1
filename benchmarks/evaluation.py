"""Measure the evaluation engine: five judges against one, and memory with ten times the images.

    python benchmarks/evaluation.py

Judges: gray-box PGD-40 at Linf 8/255 on all digits test images, with one defence and with five, alternately; CPU time
of one thread. Memory: the peak resident size of an evaluation of 1,000 and of 10,000 generated images, each in a
separate process, with FGSM and PGD-3 on an S2SNet. Writes docs/results/benchmarks/evaluation.csv.
"""

import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

import s2snet
from s2snet import data
from s2snet.models import Defended
from s2snet.store import paths

OUTPUT = Path("docs/results/benchmarks/evaluation.csv")
ROUNDS = 3


class Generated(Dataset):
    """Images generated on access from their index, so that they need no memory."""

    classes = tuple(str(number) for number in range(10))

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int):
        generator = torch.Generator().manual_seed(place)
        return torch.rand(1, 32, 32, generator=generator), place % 10


def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
    folder = paths.released() / "digits"
    return (
        s2snet.load(folder / "classifier-small_cnn.safetensors"),
        s2snet.load(folder / "s2snet-segnet_small-small_cnn.safetensors"),
    )


def judges() -> list[dict]:
    """Measure CPU seconds with one and with five judges, and the median of their ratio over the rounds."""
    torch.set_num_threads(1)
    classifier, purifier = networks()
    test = data.load("digits").test
    one = {"none": classifier}
    five = one | {f"s2snet_{number}": Defended(purifier, classifier) for number in range(4)}

    def seconds(defences: dict) -> float:
        started = time.process_time()
        s2snet.evaluate(defences, test, ["pgd"], ["gray_box"], chunk=360, progress=False)
        return time.process_time() - started

    seconds(one)  # warm-up
    times = [(seconds(one), seconds(five)) for _ in range(ROUNDS)]
    return [
        {"what": "gray-box PGD-40, 1 judge", "value": f"{statistics.median(a for a, _ in times):.2f}", "unit": "CPU s"},
        {
            "what": "gray-box PGD-40, 5 judges",
            "value": f"{statistics.median(b for _, b in times):.2f}",
            "unit": "CPU s",
        },
        {"what": "5 judges over 1", "value": f"{statistics.median(b / a for a, b in times):.3f}", "unit": "ratio"},
    ]


def peak(count: int) -> float:
    """Evaluate that many images and return the peak resident size of this process in MiB."""
    torch.set_num_threads(1)
    classifier, purifier = networks()
    attacks = {"fgsm": {}, "pgd": {"steps": 3}}
    with tempfile.TemporaryDirectory() as folder:
        s2snet.evaluate(
            {"s2snet": Defended(purifier, classifier)},
            Generated(count),
            attacks,
            {"white_box": {"routes": ["exact"]}},
            chunk=100,
            keep="sample",
            output=Path(folder) / "r",
            progress=False,
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory() -> list[dict]:
    peaks = {}
    for count in (1_000, 10_000):
        words = [sys.executable, __file__, "peak", str(count)]
        done = subprocess.run(
            words, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        peaks[count] = float(done.stdout.split()[-1])
    lines = [
        {"what": f"peak of {count:,} images", "value": f"{mib:.0f}", "unit": "MiB"} for count, mib in peaks.items()
    ]
    return [*lines, {"what": "10,000 over 1,000", "value": f"{peaks[10_000] / peaks[1_000]:.3f}", "unit": "ratio"}]


def main() -> None:
    lines = judges() + memory()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    with open(OUTPUT, "w", newline="") as file:
        writer = csv.DictWriter(file, ["what", "value", "unit"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(OUTPUT.read_text())


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print(peak(int(sys.argv[2])))
    else:
        main()
