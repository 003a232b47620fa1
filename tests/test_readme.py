"""README and docs: commands compose as written, examples call what exists, figures are those of the results."""

import ast
import functools
import importlib.util
import inspect
import re
import shlex
import sys

import pytest
from tiny import ROOT

README = (ROOT / "README.md").read_text()
EVALUATION = (ROOT / "docs/evaluation.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


LINES = [
    line.strip()
    for page in PAGES.values()
    for line in [
        *(line for block in blocks(page, "bash") for line in block.splitlines()),
        *(line.removeprefix("$ ") for block in blocks(page, "text") for line in block.splitlines() if line[:2] == "$ "),
    ]
]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("python ")))
EXAMPLES = {
    f"{name} {number}": example
    for name, page in PAGES.items()
    for number, example in enumerate(blocks(page, "python"), start=1)
} | {"own_classifier.py": (ROOT / "examples/own_classifier.py").read_text()}


def headline(folder: str) -> dict:
    from s2snet.evaluation.scores import headline, read_table

    return headline(read_table(ROOT / "docs/results" / folder / "table.csv"))


def percent(line: dict) -> str:
    return f"{100 * line['accuracy']:.1f}"


def test_there_are_commands_and_examples():
    assert any("train.py" in command for command in COMMANDS)
    assert any("evaluate.py" in command for command in COMMANDS)
    assert any("analyse.py" in command for command in COMMANDS)
    assert {"README.md 1", "evaluation.md 1", "training.md 1"} <= set(EXAMPLES)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command, monkeypatch, capfd):
    """In this process, through the function that the script calls; a sweep is checked with the first of its jobs."""
    from s2snet.cli import analyse, evaluate, settings, train

    script, *words = shlex.split(command, comments=True)[1:]
    if script == "-m":
        assert words[0].partition(".")[0] in ("s2snet", "pytest"), command
        assert importlib.util.find_spec(words[0]), command
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_python_example_calls_what_exists(name):
    """Every call of the package's functions binds to their signatures; nothing is run."""
    tree = ast.parse(EXAMPLES[name])
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.name: importlib.import_module(alias.name) for alias in node.names if alias.name == "s2snet"}
        if isinstance(node, ast.ImportFrom) and node.module.startswith("s2snet"):
            module = importlib.import_module(node.module)
            known |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert known
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        first, *path = ast.unparse(call.func).split(".")
        if first not in known:
            continue
        function = functools.reduce(getattr, path, known[first])
        inspect.signature(function).bind(*call.args, **{word.arg: word.value for word in call.keywords})


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = ROOT / name if name == "README.md" else ROOT / "docs" / name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[name]):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs", "benchmarks/README.md", "checkpoints/README.md"]
)
def test_paths_that_are_named_exist(name):
    pages = sorted((ROOT / name).glob("*.md")) if name == "docs" else [ROOT / name]
    for page in pages:
        for path in re.findall(
            r"(?<![\w/.:])(?:s2snet|conf|docs|tests|scripts|benchmarks|examples)/[\w./-]*", page.read_text()
        ):
            if not re.search(r"[A-Z]{4}", path):  # NAME, STAGE: placeholders
                assert (ROOT / path.rstrip(".")).exists(), f"{page.name}: {path}"


def test_the_first_figures_are_those_of_the_result_file():
    table = headline("digits")
    keys = [("clean", "", 0.0), ("gray_box", "linf", 8 / 255), ("worst_case", "linf", 8 / 255)]
    (row,) = re.findall(r"^\| (\S+) % \| (\S+) % \| \*\*(\S+) %\*\* \|$", README, re.MULTILINE)
    assert list(row) == [percent(table["s2snet", *key]) for key in keys]


def test_the_outputs_of_training_are_those_of_the_released_weights():
    from s2snet.store import weights

    headers = [weights.read_header(path) for path in (ROOT / "checkpoints/released/digits").glob("*.safetensors")]
    by_stage = {header["stage"]: header for header in headers}
    shown = dict(re.findall(r"^\$ python train.py stage=(\w+)\n(.*?)\n\n", README, re.DOTALL | re.MULTILINE))
    assert list(shown) == ["classifier", "1", "2"]
    for stage, text in shown.items():
        figures = dict(re.findall(r"(loss|accuracy|psnr) ([\d.]+)", text.splitlines()[-1]))
        assert figures == {name: f"{value:.4f}" for name, value in by_stage[stage]["metrics"].items()}
    for fingerprint in re.findall(r"\(stage (\w+), fingerprint (\w+)\)", shown["2"]):
        assert by_stage[fingerprint[0]]["fingerprint"].startswith(fingerprint[1])


def test_the_output_of_the_evaluation_is_what_is_printed_for_the_result_file(monkeypatch, capsys):
    from s2snet.report.terminal import summary

    monkeypatch.setenv("COLUMNS", "80")
    summary(ROOT / "docs/results/digits")
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    shown = README.partition("$ python evaluate.py\n")[2]
    assert shown.startswith(printed.replace("\u00a0", " "))
    for title, verdict in re.findall(r"^Audit of (.+): ([A-Z]+(?:\(\d\))?)", shown.partition("```")[0], re.MULTILINE):
        assert re.search(rf"^\| {title} \|.*\| {re.escape(verdict)} \|$", README, re.MULTILINE), title


def test_table_is_that_of_the_result_file(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme_table import markdown

    assert markdown(ROOT / "docs/results/digits") in README


def test_figures_in_the_text_are_those_of_the_result_file():
    table = headline("digits")
    text = README.partition("Against an attacker who does not know about it, ")[2].partition("\n\n")[0]
    expected = [
        table["s2snet", "gray_box", "linf", 8 / 255],
        table["s2snet", "gray_box", "linf", 25.5 / 255],
        table["s2snet", "worst_case", "linf", 8 / 255],
        table["s2snet", "worst_case", "linf", 25.5 / 255],
        table["adversarial", "worst_case", "linf", 8 / 255],
    ]
    assert re.findall(r"(\d+\.\d) %", text) == [percent(line) for line in expected]


def test_index_maps_expectations_are_those_of_the_result_file():
    table = headline("index_maps")
    text = (ROOT / "conf/experiment/index_maps.yaml").read_text().partition("clean ")[2].partition("\n")[0]
    keys = [("clean", "", 0.0)] + [(t, "linf", r / 255) for t in ("gray_box", "worst_case") for r in (8, 25.5)]
    figures = [percent(table["s2snet", *key]) for key in keys]
    assert re.findall(r"(?<![\d.])(\d+\.\d)(?![\d/])", text) == figures


def test_the_routes_of_the_index_maps_are_those_of_the_result_file(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme_table import routes

    table = routes(ROOT / "docs/results/index_maps", 8 / 255)
    assert table in EVALUATION
    text = (ROOT / "conf/experiment/index_maps.yaml").read_text().partition("No single route")[2].partition("\n")[0]
    for route in ("identity", "exact", "soft"):
        figure = re.search(rf"(\d+\.\d) by `{route}`", text)[1]
        assert re.search(rf"\| S2SNet \|.*\b{figure}\b", table), route


def test_the_readme_lists_all_studies():
    from s2snet.analysis import STUDIES

    assert re.findall(r"^python analyse.py study=\[(\w+)\]", README, re.MULTILINE) == list(STUDIES)


def test_the_pages_of_the_studies_say_what_the_results_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from analysis_docs import filled

    from s2snet.analysis import STUDIES

    pages = sorted((ROOT / "docs/analyses").glob("*.md"))
    assert {page.stem for page in pages} == set(STUDIES)
    for page in pages:
        assert filled(page) == page.read_text(), f"{page.name}: python scripts/analysis_docs.py writes it again"
        assert "<!-- claims digits -->" in page.read_text(), page.name
