"""The commands of the README and of docs/machines.md: each composes as it is written."""

import re
import shlex
import sys

import pytest
from tiny import ROOT

README = ROOT / "README.md"
PAGES = "\n".join(page.read_text() for page in (README, ROOT / "docs/machines.md"))
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGES, re.DOTALL | re.MULTILINE)
LINES = [line.strip().removeprefix("$ ") for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python ")]


def test_there_are_commands():
    assert any("train.py" in command for command in COMMANDS)
    assert any("evaluate.py" in command for command in COMMANDS)
    assert any("analyse.py" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command, monkeypatch, capfd):
    """In this process, through the function that the script calls; a sweep is checked job by job."""
    from s2snet.cli import analyse, evaluate, settings, train

    script, *words = shlex.split(command, comments=True)[1:]
    if script == "-m":
        assert words[0].partition(".")[0] in ("s2snet", "pytest"), command
        return
    assert (ROOT / script).is_file(), command
    mains = {"train.py": train, "evaluate.py": evaluate, "analyse.py": analyse}
    if script not in mains:
        return
    swept = [word for word in words if word not in ("-m", "--multirun")]
    one = [re.sub(r"=([^\[,]+),.*", r"=\1", word) if "-m" in words else word for word in swept]
    if {"--help", "--cfg"} & set(one):
        return
    monkeypatch.setattr(sys, "argv", [script, *one, "--cfg", "job"])
    mains[script].main()
    assert capfd.readouterr().out
    from tiny import composed

    name = script.removesuffix(".py")
    getattr(settings, f"{name}_settings")(composed(name, *one))


def test_table_is_that_of_the_result_file(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme_table import markdown

    assert markdown(ROOT / "docs/results/digits") in README.read_text()


def test_figures_in_the_text_are_those_of_the_result_file():
    from s2snet.evaluation.scores import headline, read_table

    speaking = headline(read_table(ROOT / "docs/results/digits/table.csv"))
    said = README.read_text().partition("**What the defence does not withstand.**")[2].partition("\n\n")[0]
    expected = [
        speaking["s2snet", "gray_box", "linf", 8 / 255],
        speaking["s2snet", "gray_box", "linf", 25.5 / 255],
        speaking["s2snet", "worst_case", "linf", 8 / 255],
        speaking["s2snet", "worst_case", "linf", 25.5 / 255],
        speaking["adversarial", "worst_case", "linf", 8 / 255],
    ]
    assert re.findall(r"(\d+\.\d) %", said) == [f"{100 * line['accuracy']:.1f}" for line in expected]


def test_index_maps_expectations_are_those_of_the_result_file():
    from s2snet.evaluation.scores import headline, read_table

    speaking = headline(read_table(ROOT / "docs/results/index_maps/table.csv"))
    said = (ROOT / "conf/experiment/index_maps.yaml").read_text().partition("clean ")[2].partition("\n")[0]
    keys = [("clean", "", 0.0)] + [(t, "linf", r / 255) for t in ("gray_box", "worst_case") for r in (8, 25.5)]
    figures = [f"{100 * speaking['s2snet', *key]['accuracy']:.1f}" for key in keys]
    assert re.findall(r"(?<![\d.])(\d+\.\d)(?![\d/])", said) == figures


def test_the_routes_of_the_index_maps_are_those_of_the_result_file(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme_table import routes

    table = routes(ROOT / "docs/results/index_maps", 8 / 255)
    assert table in README.read_text()
    said = (ROOT / "conf/experiment/index_maps.yaml").read_text().partition("No single route")[2].partition("\n")[0]
    for route in ("identity", "exact", "soft"):
        figure = re.search(rf"(\d+\.\d) by `{route}`", said)[1]
        assert re.search(rf"\| S2SNet \|.*\b{figure}\b", table), route


def test_the_pages_of_the_studies_say_what_the_results_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from analysis_docs import filled

    from s2snet.analysis import STUDIES

    pages = sorted((ROOT / "docs/analyses").glob("*.md"))
    assert {page.stem for page in pages} == set(STUDIES)
    for page in pages:
        assert filled(page) == page.read_text(), f"{page.name}: python scripts/analysis_docs.py writes it anew"
        assert "<!-- claims digits -->" in page.read_text(), page.name
