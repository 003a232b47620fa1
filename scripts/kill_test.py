"""Kill an evaluation ten times, restart it each time, and compare the result with that of an undisturbed run.

    python scripts/kill_test.py [kills] [words for evaluate.py ...]

Each start runs the same command in a new process and ends it with SIGKILL at a random moment; the last one may
finish. rows.parquet, table.csv, measures.csv and curves.csv must then be byte-identical to those of the undisturbed
run. Exit code 0 if they are. Uses the released digits weights; takes four minutes on two cores.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("rows.parquet", "table.csv", "measures.csv", "curves.csv", "samples.safetensors")
WORDS = ["images=120", "chunk=20", "attack=[fgsm,pgd]", "attack.pgd.steps=10", "threat.white_box.fit_steps=20"]


def command(output: Path, words: list[str]) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "evaluate.py"),
        f"weights={ROOT / 'checkpoints/released/digits'}",
        f"output={output}",
        "trainer.progress=false",
        *words,
    ]


def whole_files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part"))


def main(kills: int, words: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole" / "r", Path(folder) / "killed" / "r"
        started = time.monotonic()
        process = subprocess.Popen(command(whole, words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(whole.glob("ledger/judged/*/*/*.parquet")) and process.poll() is None:
            time.sleep(0.05)
        before = time.monotonic() - started
        if process.wait():
            sys.exit("the undisturbed run failed; run evaluate.py to see why")
        work = time.monotonic() - started - before
        print(f"undisturbed: {before:.0f} s to the first rows, {work:.0f} s of work", flush=True)
        draw = random.Random(0)
        for number in range(1, kills + 1):
            process = subprocess.Popen(
                command(killed, words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            start = time.monotonic()
            if number % 4 == 0:  # kill it before it has done anything
                pause = draw.uniform(0, before / 2)
            else:  # kill it a random time after work has started, such that all kills together leave some work
                known = whole_files(killed)
                while whole_files(killed) == known and process.poll() is None:
                    time.sleep(0.02)
                pause = draw.uniform(0, work / kills)
            try:
                process.wait(timeout=pause)
                state = "had finished"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                state = "killed"
            took = time.monotonic() - start
            print(f"{number:2d}: {state} after {took:.1f} s; {whole_files(killed)} whole files", flush=True)
        subprocess.run(command(killed, words), check=True, capture_output=True)
        different = [name for name in COMPARED if (whole / name).read_bytes() != (killed / name).read_bytes()]
        left = list(killed.rglob("*.damaged"))
        shutil.rmtree(killed)
    print(f"different: {', '.join(different)}" if different else f"identical: {', '.join(COMPARED)}")
    print(f"damaged files: {len(left)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:] or WORDS))
