"""The registry of studies: each has its parts, and what follows from the registry is up to date."""

import subprocess
import sys

import pytest
from tiny import ROOT

from s2snet import analysis
from s2snet.analysis import STUDIES

FOLDERS = ROOT / "s2snet" / "analysis"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_its_parts(name):
    study, figures = (analysis.load(name, part) for part in ("study", "figures"))
    assert isinstance(study.VERSION, int) and callable(study.run)
    assert figures.TITLE and figures.QUESTION.endswith((".", "?")) and callable(figures.figures)


def test_every_folder_is_registered():
    folders = {path.parent.name for path in FOLDERS.glob("*/study.py")}
    assert folders == set(STUDIES)


def test_a_mistyped_study_gets_the_nearest_match():
    with pytest.raises(ValueError, match=r"study=gradient \(did you mean 'gradients'\?\): allowed are gradients, "):
        analysis.load("gradient", "figures")


def test_the_registry_claims_and_figures_import_no_torch():
    files = [path for pattern in ("*/*claims.py", "*/figures.py", "*/*_figures.py") for path in FOLDERS.glob(pattern)]
    names = ["s2snet.analysis.claim", "s2snet.analysis.relations.rankings", "s2snet.report.studies.page"]
    names += [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    program = (
        f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    )
    assert len(names) > 10
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_readme_lists_the_registry(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from analysis_docs import LIST, listed

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert LIST.search(readme) and listed(readme) == readme, "python scripts/analysis_docs.py updates it"
    assert listed("python analyse.py study=[old]  # gone\n").count("\n") == len(STUDIES)


def test_a_study_without_a_page_gets_one(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import analysis_docs

    page = tmp_path / "gradients.md"
    page.write_text(analysis_docs.first_page("gradients"))
    assert "`python analyse.py" in analysis_docs.filled(page)
    monkeypatch.setattr(analysis_docs, "KEPT", tmp_path)
    assert "No result is kept yet" in analysis_docs.filled(page)
