"""`python analyse.py` as a user runs it: it resumes after a kill, and its pages show what the study found."""

import json
import re
import signal
from pathlib import Path

import pytest
from browser import CHROMIUM, Page
from omegaconf import OmegaConf
from reading import Reader
from result_folder import make
from tiny import TINY, composed, forked, kill_self, run_script

from s2snet.analysis import bench
from s2snet.analysis.from_settings import analyse
from s2snet.cli import settings
from s2snet.report.studies.page import write_analysis

PAGES = ("analysis.html", "report.html")
WORDS = ["study=[gradients]", "defence=[none,autoencoder,s2snet,adversarial]", "output=results/digits", "seed=3", *TINY]
WORDS += [f"study.gradients.{key}" for key in ("images=40", "folds=3", "shuffles=1", "unpoolings=[]")]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def run(runs: Path, folder: Path) -> Path:
    """Run `python analyse.py WORDS` in this process, in a folder of its own; return the result folder."""
    words = [*WORDS, f"runs={runs}"]
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.delenv("S2SNET_DATA", raising=False)  # it would be in the config
        config = composed("analyse", *words)
        command = " ".join(["python analyse.py", *words])
        yaml = OmegaConf.to_yaml(config, resolve=True)
        analyse(settings.analyse_settings(config), yaml, command, explicit=True, say=lambda text: None)
    return folder / "results" / "digits"


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A result folder with a study of tiny networks and an evaluation, and both pages."""
    evaluated = make(tmp_path_factory.mktemp("results") / "evaluated", images=30, kept=2)
    analysed = run(trained, tmp_path_factory.mktemp("whole"))
    (analysed / "analysis").rename(evaluated / "analysis")
    assert {path.name for path in write_analysis(evaluated).values()} == set(PAGES)
    return evaluated


@pytest.fixture(scope="module")
def study(folder):
    return json.loads((folder / "analysis" / "gradients" / "study.json").read_text())


def text(html: str) -> str:
    return " ".join("".join(Reader(html).text).split())


def test_a_killed_run_goes_on_and_comes_to_the_same_tables(trained, folder, tmp_path, monkeypatch):
    there = tmp_path / "killed" / "results" / "digits" / "analysis" / "gradients"
    write = bench.make_whole

    def killed(path: Path, *rest):
        write(path, *rest)
        if path.name.startswith("loss_at_label-"):
            kill_self()

    monkeypatch.setattr(bench, "make_whole", killed)
    assert forked(lambda: run(trained, tmp_path / "killed")) == signal.SIGKILL
    known = {path: path.stat().st_mtime_ns for path in there.glob("parts/*.safetensors")}
    assert known and not (there / "study.json").exists()

    resumed = run_script("analyse", *WORDS, f"runs={trained}", folder=tmp_path / "killed", timeout=240)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in known} == known  # not computed again
    whole = folder / "analysis" / "gradients"
    tables = sorted(path.name for path in whole.glob("*.csv"))
    assert tables == sorted(path.name for path in there.glob("*.csv")) and "measures.csv" in tables
    for name in (*tables, "study.json", "grids.safetensors"):
        assert (there / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_study_whole(folder, study, name):
    html = (folder / name).read_text(encoding="utf-8")
    section = re.search(r'<section id="study-gradients".*?</section>', html, re.DOTALL)[0]
    shown_text = text(section)
    assert "Gradients and index maps" in shown_text and study["command"] in shown_text
    for claim in study["claims"]:
        shown = " ".join(f"{claim['says']} {claim['found']}".split())
        assert shown in shown_text and claim["verdict"].upper() in shown_text
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
