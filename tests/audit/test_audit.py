"""`s2snet.audit` from Python and from the command line, on a custom classifier; and docs/audit.md."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny import ROOT
from torch import nn

import s2snet
from s2snet.audit import checks
from s2snet.cli import audit as command_line
from s2snet.evaluation.scores import read_table

SOURCE = """
import s2snet
from s2snet.store import paths

def build():
    return s2snet.load(paths.released() / "digits/classifier-small_cnn.safetensors")
"""
SMALL = [
    "images=12",
    "threat=[white_box]",
    "attack=[pgd]",
    "audit=quick",
    "samples=0",
    "trainer.progress=false",
    "output=out",
]
QUICK = {"attacks": {"pgd": {"steps": 4}}, "threats": ["white_box"], "images": 12, "audit": "quick"}


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


def pictures(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images that `classifier` classifies correctly, and their labels."""
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, classifier()(images).argmax(dim=1)


def command(words: list[str], monkeypatch, capfd) -> tuple[int, str, str]:
    """Return (exit status, stdout, stderr) of `python -m s2snet.audit WORDS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["audit", *words])
    capfd.readouterr()
    status = 0
    try:
        command_line.main()
    except SystemExit as ended:
        if isinstance(ended.code, str):  # as the interpreter ends with it
            print(ended.code, file=sys.stderr)
        status = 1 if isinstance(ended.code, str) else ended.code
    return status, *capfd.readouterr()


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """Return the folder of one audit, shared by tests that copy it."""
    folder = tmp_path_factory.mktemp("audited") / "r"
    s2snet.audit(classifier(), pictures(), output=folder, **QUICK)
    return folder


@pytest.fixture
def folder(audited, tmp_path) -> Path:
    return Path(shutil.copytree(audited, tmp_path / "r"))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write the module `own_audited`, which builds a classifier of digits, and return its name."""
    (tmp_path / "own_audited.py").write_text(SOURCE)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield "own_audited"
    sys.modules.pop("own_audited", None)


# ------------------------------------------------------------------ from Python


def test_any_classifier_has_findings_a_verdict_and_a_page(tmp_path, capsys):
    found = s2snet.audit({"mine": classifier()}, pictures(), output=tmp_path / "r", **QUICK)
    out = capsys.readouterr().out
    assert list(found.columns) == ["check", "defence", "verdict", "evidence", "part", "remedy"]
    assert set(found.defence) == {"mine", ""} and set(found.check) <= set(checks.CHECKS)
    assert found.verdict.tolist() == sorted(found.verdict, key=["fail", "warn", "pass", "not applicable"].index)
    assert found.attrs["verdicts"] == {"mine": "WARN(1)"}  # twelve images are few
    (warning,) = found[found.verdict == "warn"].itertuples()
    assert f"warn denominators [data]: {warning.evidence}" in out and warning.remedy in out
    assert out.splitlines()[-1] == f"audit:  {tmp_path / 'r' / 'audit.html'}"
    page = (tmp_path / "r/audit.html").read_text()
    assert warning.evidence in page and "audit=quick" in page
    assert 'id="audit"' in (tmp_path / "r/report.html").read_text()
    assert {line["audit"] for line in read_table(tmp_path / "r/table.csv")} == {"WARN(1)"}


def test_the_package_can_be_called(tmp_path):
    package = importlib.import_module("s2snet.audit")
    assert s2snet.audit is package and package.checks is checks and callable(s2snet.audit)
    with pytest.raises(ValueError, match=r"^audit=ful \(did you mean 'full'\?\): allowed are quick, full$"):
        s2snet.audit(classifier(), pictures(), audit="ful")
    with pytest.raises(ValueError, match=r"^defended is in training mode"):
        s2snet.audit(classifier().train(), pictures(), output=tmp_path / "r")


# ------------------------------------------------------------------ of a result folder


def test_a_folder_is_audited_again_from_its_files(folder, monkeypatch, capfd):
    before = (folder / "audit.json").read_bytes()
    for name in ("audit.json", "audit.html", "report.html"):
        (folder / name).unlink()
    shutil.rmtree(folder / "ledger")
    status, out, err = command([str(folder)], monkeypatch, capfd)
    assert (status, err) == (0, "")
    assert out.startswith("Audit of defended: WARN(1)\n  warn denominators [data]: n=12")
    assert (folder / "audit.json").read_bytes() == before
    assert (folder / "audit.html").is_file() and (folder / "report.html").is_file()


def test_what_fails_is_the_exit_status(folder, monkeypatch, capfd):
    probes = json.loads((folder / "probes.json").read_text())
    probes["defences"]["defended"]["gradients"]["zero"] = 0.5
    (folder / "probes.json").write_text(json.dumps(probes))
    status, out, _ = command([str(folder)], monkeypatch, capfd)
    assert status == 1 and out.startswith("Audit of defended: FAIL(1)\n  fail zero_gradients [")
    assert {line["audit"] for line in read_table(folder / "table.csv")} == {"FAIL(1)"}
    assert "Do not believe these numbers yet: one check failed." in (folder / "audit.html").read_text()


def test_an_audit_that_was_off_can_be_requested_later(tmp_path, monkeypatch, capfd):
    options = {"attacks": {"pgd": {"steps": 2}}, "threats": ["white_box"], "output": tmp_path / "r"}
    rows = s2snet.evaluate(classifier(), pictures(), audit="off", **options)
    assert rows.attrs["audit"] == []
    assert {line["audit"] for line in rows.attrs["table"]} == {"OFF"}
    assert json.loads((tmp_path / "r/audit.json").read_text())["verdicts"] == {"defended": "OFF"}
    assert not (tmp_path / "r/audit.html").exists() and not (tmp_path / "r/probes.json").exists()
    status, out, _ = command(["r"], monkeypatch, capfd)
    assert status == 0 and out.startswith("Audit of defended: WARN(1)")
    assert "ran with <code>audit=off</code>" in (tmp_path / "r/audit.html").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nowhere", "nowhere: no finished evaluation there (no run.json)"),
        ("table", "table: no rows.parquet there; an audit reads the rows of every image"),
        ("r s", "r s: expected one result folder, or model=my_package.my_module:build"),
        ("data=digits", "name one model, such as model=my_package.my_module:build"),
        ("model=own_audited", "classifier.target=own_audited: write my_package.my_module:function"),
        (
            "model=own_audited:bild",
            "classifier.target=own_audited:bild (did you mean 'build'?): own_audited has no function 'bild'",
        ),
        ("model=own_audited:build audit=quik", "audit=quik (did you mean 'quick'?): allowed are off, quick, full"),
    ],
)
def test_what_cannot_be_audited_is_one_line(words, line, own, monkeypatch, capfd, tmp_path):
    results = ROOT / "docs/results/digits"  # a table without its rows
    shutil.copytree(results, tmp_path / "table")
    status, out, err = command(words.split(), monkeypatch, capfd)
    assert (status, out, err) == (1, "", f"error: {line}\n")


# ------------------------------------------------------------------ of a classifier by name


def test_a_classifier_by_name_is_audited_and_a_failure_is_the_exit_status(own, monkeypatch, capfd):
    status, out, _ = command([f"model={own}:build", *SMALL], monkeypatch, capfd)
    assert status == 0 and "audit:  out/audit.html" in out
    assert "warn denominators [data]" in out and "-> evaluate more images" in out
    short = ["attack.pgd.steps=2", "attack.pgd.step_size=0.001"]
    status, out, err = command([f"model={own}:build", *SMALL, *short], monkeypatch, capfd)
    assert status == 1 and "fail step_budget [attack]" in out
    assert (
        err.splitlines()[-1]
        == "error: strict=true: the audit failed; the report names the failed checks and their remedies"
    )
    assert command([f"model={own}:build", *SMALL, *short, "strict=false"], monkeypatch, capfd)[0] == 0


# ------------------------------------------------------------------ docs


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"fgsm", "apgd", "apgd_margin", "square"}),
        ({"attacks": ["apgd"]}, {"apgd"}),
        ({"threats": ["white_box"]}, {"fgsm", "apgd", "apgd_margin"}),
        ({"attacks": ["fgsm", "square"]}, {"fgsm", "square"}),
    ],
)
def test_attacks_and_threats_follow_each_other(given, wanted, monkeypatch, tmp_path):
    from s2snet import api

    class Stop(Exception):
        pass

    def planned(job, say, probe):
        from s2snet.evaluation.plan import plan

        found.update(cell.attack for cell in plan(job).cells if cell.source is not None)
        raise Stop

    found = set()
    monkeypatch.setattr(api, "run", planned)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    with pytest.raises(Stop):
        s2snet.audit(model, (torch.rand(4, 1, 8, 8), torch.arange(4) % 3), output=tmp_path / "r", **given)
    assert found == wanted


def test_the_documentation_is_generated_from_the_checks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from audit_docs import markdown

    text = markdown()
    assert (ROOT / "docs/audit.md").read_text() == text, "python scripts/audit_docs.py rewrites it"
    for section in text.partition("\n### ")[2].split("\n### "):
        name, claim, *why, remedy = section.partition("\n## ")[0].strip().split("\n\n")
        assert name.strip("`") in checks.CHECKS and claim.startswith("**") and claim.endswith(".**"), name
        assert why, f"{name}: its docstring explains neither why nor when it fails"
        assert remedy.removeprefix("*Remedy:*").strip(), f"{name}: its docstring has no remedy"
