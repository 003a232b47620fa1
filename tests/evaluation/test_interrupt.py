"""Ctrl-C once stops after the current chunk, twice at once; the same command continues."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from jobs import crafted, files
from tiny import ROOT, TINY, evaluate

WORDS = [
    "images=12", "chunk=4", "attack=[pgd]", "attack.pgd.steps=200", "budgets.linf=[0.1]", "budgets.l2=[]", "samples=2",
    "defence=[none]", "+defence.mine.purifier={name: bit_depth}", "classifier.weights=random", "threat=[gray_box]",
    "output=r", "audit=off",
]  # fmt: skip


def wait_for(something, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not something():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kept(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("ledger/crafted/*/*.safetensors")]


def test_ctrl_c_stops_after_the_current_chunk_and_the_command_continues(tmp_path):
    with subprocess.Popen(
        [sys.executable, str(ROOT / "evaluate.py"), *TINY, *WORDS],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # rounding depends on it
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: kept(tmp_path / "r") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        messages = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert messages.splitlines()[-2:] == [
        "stopping after the current chunk; Ctrl-C again stops at once",
        "stopped; the same command continues from r",
    ]
    assert "Traceback" not in messages
    before = crafted(tmp_path / "r")
    assert 0 < len(before) == len(kept(tmp_path / "r")) < 3
    assert not (tmp_path / "r/table.csv").exists()
    assert not list((tmp_path / "r").rglob("*.part"))
    folder, _ = evaluate(*WORDS)
    assert crafted(folder)[: len(before)] == before
    assert len(crafted(folder)) == len(set(crafted(folder)))
    assert files(folder) == files(evaluate(*WORDS, "output=whole")[0])


def test_ctrl_c_twice_stops_at_once(tmp_path):
    """In the middle of a piece that would take a while."""
    words = [*WORDS, "attack.pgd.steps=4000"]
    pid = os.fork()
    if pid == 0:
        try:
            evaluate(*words)
        except KeyboardInterrupt:
            os._exit(13)
        finally:
            os._exit(1)
    wait_for(lambda: list((tmp_path / "r").glob("ledger/crafted/*/cell.json")))
    time.sleep(0.3)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # still running
    os.kill(pid, signal.SIGINT)
    started = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 13
    assert time.monotonic() - started < 5
    assert not kept(tmp_path / "r")


def test_the_handler_is_the_callers_again_afterwards():
    before = signal.getsignal(signal.SIGINT)
    evaluate(*WORDS, "attack.pgd.steps=1", "images=2")
    assert signal.getsignal(signal.SIGINT) is before
