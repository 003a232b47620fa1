"""`python analyse.py` as its user meets it: it goes on after a kill, and its pages show what the study found."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, Page
from reading import Reader
from result_folder import make
from tiny import ROOT, TINY

from s2snet.report.studies.page import write_analysis

PAGES = ("analysis.html", "report.html")
WORDS = ["study=[gradients]", "defence=[none]", "output=results/digits", "seed=3", *TINY]
WORDS += [f"study.gradients.{key}" for key in ("images=40", "folds=3", "shuffles=1", "train_images=64", "epochs=1")]
WORDS += ["study.gradients.unpoolings=[indices]"]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def started(runs: Path, folder: Path) -> subprocess.Popen:
    """`python analyse.py ...` in a folder of its own, so that the command is the same wherever it runs."""
    folder.mkdir(exist_ok=True)
    about = {key: value for key, value in os.environ.items() if key != "S2SNET_DATA"}  # it would stand in the config
    return subprocess.Popen(
        [sys.executable, str(ROOT / "analyse.py"), *WORDS, f"runs={runs}"],
        cwd=folder,
        env={**about, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(runs: Path, folder: Path) -> Path:
    """The result folder of a run that is let alone."""
    process = started(runs, folder)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return folder / "results" / "digits"


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A result folder with a study of tiny networks, beside an evaluation, and both pages."""
    there = make(tmp_path_factory.mktemp("results") / "evaluated", images=30, kept=2)
    found = finished(trained, tmp_path_factory.mktemp("whole"))
    (found / "analysis").rename(there / "analysis")
    assert {path.name for path in write_analysis(there).values()} == set(PAGES)
    return there


@pytest.fixture(scope="module")
def study(folder):
    return json.loads((folder / "analysis" / "gradients" / "study.json").read_text())


def text(html: str) -> str:
    return " ".join("".join(Reader(html).text).split())


def test_a_killed_run_goes_on_and_comes_to_the_same_tables(trained, folder, tmp_path):
    there = tmp_path / "killed" / "results" / "digits" / "analysis" / "gradients"
    process = started(trained, tmp_path / "killed")
    while not list(there.glob("parts/loss_at_label-*.safetensors")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    known = {path: path.stat().st_mtime_ns for path in there.glob("parts/*.safetensors")}
    assert known and not (there / "study.json").exists()

    finished(trained, tmp_path / "killed")
    assert {path: path.stat().st_mtime_ns for path in known} == known  # not made again
    whole = folder / "analysis" / "gradients"
    tables = sorted(path.name for path in whole.glob("*.csv"))
    assert tables == sorted(path.name for path in there.glob("*.csv")) and "measures.csv" in tables
    for name in (*tables, "study.json", "grids.safetensors"):
        assert (there / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_study_whole(folder, study, name):
    html = (folder / name).read_text(encoding="utf-8")
    section = re.search(r'<section id="study-gradients".*?</section>', html, re.DOTALL)[0]
    said = text(section)
    assert "Gradients and index maps" in said and study["command"] in said
    for claim in study["claims"]:
        shown = " ".join(f"{claim['says']} {claim['found']}".split())
        assert shown in said and claim["verdict"].upper() in said
    figures = sorted((folder / "analysis" / "gradients" / "figures").glob("*.svg"))
    assert section.count('<svg class="figure"') == len(figures) > 0
    cells = sum(len(grid["rows"]) * len(grid["columns"]) for grid in study["grids"].values())
    assert section.count('<img src="data:image/png;base64,') == cells > 0
    reader = Reader(html)
    assert all(value.startswith(("#", "data:")) for value in reader.fetched)
    assert len(reader.ids) == len(set(reader.ids))


def test_the_same_study_gives_the_same_bytes(folder):
    before = {name: (folder / name).read_bytes() for name in PAGES}
    write_analysis(folder)
    assert {name: (folder / name).read_bytes() for name in PAGES} == before


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_pages_are_quiet_and_do_not_scroll_sideways(folder, tmp_path, name, width):
    with Page(folder / name, tmp_path, width=width, dark=width == 390) as page:
        page.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert page.value("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        for what, shown in (
            ("img", "e.complete && e.naturalWidth > 0"),
            ("svg", "e.getBoundingClientRect().width > 200"),
        ):
            assert page.value(f"[...document.querySelectorAll('.study {what}')].every(e => {shown})")
        drawn = "[...document.querySelectorAll('.study svg [style*=\"--defence-\"]')]"
        colours = page.value(f"[...new Set({drawn}.map(e => e.style.stroke && getComputedStyle(e).stroke))]")
        assert len(colours) > 3  # one for each network; undefined ones would all be alike
        assert page.problems == []
        fetched = [url for url in page.requests if not url.startswith("data:")]
        assert fetched == [(folder / name).resolve().as_uri()]
