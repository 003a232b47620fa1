"""Test loading from and pushing to a simulated Hugging Face hub, and the model cards."""

import html
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import errors
from markdown_it import MarkdownIt
from tiny import ROOT, evaluate, run_python, train

import s2snet
from s2snet import hub
from s2snet.evaluation.scores import headline, read_table
from s2snet.report.card import card, line, text
from s2snet.store import remote, weights

RELEASED = ROOT / "checkpoints/released/digits"
RESULTS = ROOT / "docs/results/digits"
PURIFIER = "s2snet-segnet_small-small_cnn.safetensors"


class Hub:
    """Repositories in a folder, with the functions of huggingface_hub that the package calls."""

    def __init__(self, folder):
        self.folder, self.requests, self.commits, self.public = folder, [], [], False

    def hf_hub_download(self, repo_id, filename, revision=None):
        self.requests.append((repo_id, filename, revision))
        path = self.folder / repo_id / filename
        if not path.is_file():
            raise errors.RemoteEntryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        return str(path)

    def HfApi(self):
        return self

    def create_repo(self, repo_id, private=None, exist_ok=False):
        self.requests.append((repo_id, private, exist_ok))

    def model_info(self, repo_id):
        return SimpleNamespace(private=not self.public)

    def create_commit(self, repo_id, operations, commit_message):
        self.commits.append(commit_message)
        for operation in operations:
            path = self.folder / repo_id / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            with operation.as_file() as file:
                path.write_bytes(file.read())


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    import huggingface_hub

    fake = Hub(tmp_path / "hub")
    for name in ("hf_hub_download", "HfApi"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    return fake


def worst(defence: str, eps: float) -> str:
    """Return the worst case of a defence as shown on a card, from the table in docs/results."""
    line = headline(read_table(RESULTS / "table.csv"))[defence, "worst_case", "linf", eps]
    return f"{line['accuracy']:.1%} ({line['low']:.1%}\u2013{line['high']:.1%})".replace("%", "")


def test_what_is_pushed_comes_back(fake_hub):
    address = hub.push(RELEASED / PURIFIER, "some/body", results=RESULTS, licence="apache-2.0")
    assert address == f"hf://some/body/{PURIFIER}"
    assert fake_hub.requests == [("some/body", None, True)]
    assert len(fake_hub.commits) == 1  # weights and card together
    loaded, original = s2snet.load(address), s2snet.load(RELEASED / PURIFIER)
    assert loaded.header == original.header == weights.read_header(address)
    assert weights.fingerprint(loaded) == weights.fingerprint(original)
    assert worst("s2snet", 25.5 / 255) in (fake_hub.folder / "some/body/README.md").read_text()
    s2snet.load(f"hf://some/body@v1.0/{PURIFIER}")
    assert fake_hub.requests[-1] == ("some/body", PURIFIER, "v1.0")


def test_training_and_evaluation_take_addresses(fake_hub, trained):
    for name in ("autoencoder-segnet_small", "classifier-small_cnn"):
        shutil.copytree(trained / "digits" / name, fake_hub.folder / "some" / name)
    words = [
        f"from_autoencoder=hf://some/{'autoencoder-segnet_small'}/weights.safetensors",
        f"from_classifier=hf://some/{'classifier-small_cnn'}/weights.safetensors",
    ]
    path = train("stage=2", "output=tuned", *words, "recipes.stage2.epochs=1", "recipes.stage2.batch_size=512")
    hub.push(path, "some/tuned")
    address = "hf://some/tuned@main/weights.safetensors"
    few = ["attack=[fgsm]", "images=6", "samples=0", "threat.white_box.routes=[exact]", "output=r"]
    folder, lines = evaluate(f"runs={trained}", "defence=[none,s2snet]", f"defence.s2snet.purifier={address}", *few)
    assert any(address in line for line in lines)
    run = json.loads((folder / "run.json").read_text())
    tuned = run["defences"][1]
    assert tuned["weights"][1] == address
    assert tuned["parts"]["purifier"] == weights.read_header(path)["fingerprint"]
    assert "| L\u221e 8/255, white box |" in card(weights.read_header(path), address, results=folder)


@pytest.mark.parametrize(
    "address", ["hf://some", "hf://some/body", "hf://some/body/../x", "hf://some/body/a//b", "hf://some/body@/a",
                "hf://some/body/a b", "hf://../body/a", "hf://some/body/.hidden", "hf://some/body/a?b"]
)  # fmt: skip
def test_bad_addresses_are_one_line(address, fake_hub):
    with pytest.raises(ValueError) as error:
        s2snet.load(address)
    assert str(error.value) == f"{address}: not an address; write hf://user/repo/file or hf://user/repo@revision/file"
    assert not fake_hub.requests


def test_a_missing_file_is_one_line(fake_hub):
    with pytest.raises(ValueError) as error:
        s2snet.load("hf://some/body/a.safetensors")
    assert str(error.value) == "hf://some/body/a.safetensors: the repository has no such file"


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: s2snet.load("hf://some/body/a.safetensors"),
        lambda: hub.push(RELEASED / PURIFIER, "some/body"),
    ):
        with pytest.raises(ValueError, match=r"huggingface_hub is not installed; pip install huggingface_hub"):
            call()


def test_offline_it_is_one_line(tmp_path):
    """With the real huggingface_hub, in one process: loading, then `python -m s2snet.hub push`."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    program = (
        "import runpy, sys, s2snet\n"
        "try: s2snet.load('hf://some/body/a.safetensors')\n"
        "except ValueError as error: print(error)\n"
        "runpy.run_module('s2snet.hub', run_name='__main__', alter_sys=True)"
    )
    done = run_python("-c", program, "push", str(RELEASED / PURIFIER), "some/body", **offline)
    assert done.stdout == (
        "hf://some/body/a.safetensors: the hub cannot be reached, and the file was not downloaded before\n"
    )
    assert done.returncode == 1
    assert done.stderr == "error: some/body: the hub cannot be reached: offline mode is on (HF_HUB_OFFLINE)\n"


def test_a_hub_that_does_not_respond_is_one_line_despite_retries(tmp_path):
    """In a process that has not imported huggingface_hub before, without waiting between retries."""
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    program = "import time, s2snet\ntime.sleep = id\ns2snet.load('hf://some/body/a.safetensors')"
    done = run_python("-c", program, **nowhere)
    assert done.stderr.splitlines()[0].startswith("Traceback") and "Retry" not in done.stderr
    assert "the hub cannot be reached, and the file was not downloaded before" in done.stderr.splitlines()[-1]


def test_refusals_of_the_hub_are_explained():
    def refused(kind, status=404):
        return kind("no", response=SimpleNamespace(headers={}, request=None, status_code=status))

    assert "private one that needs a login" in remote.reason(refused(errors.RepositoryNotFoundError))
    assert "must be granted by its owner" in remote.reason(refused(errors.GatedRepoError))
    assert "no such revision" in remote.reason(refused(errors.RevisionNotFoundError))
    assert "may write there" in remote.reason(refused(errors.HfHubHTTPError, status=403))
    assert remote.reason(ConnectionError("no\nroute")) == "the hub cannot be reached (no route)"
    assert remote.reason(RuntimeError("some\nthing")) == "some thing"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: command"),
        (["push", str(RELEASED / PURIFIER)], "the following arguments are required: USER/REPO"),
        (["push", str(RELEASED / PURIFIER), "body"], "body: expected a repository, user/name"),
        (["push", "none.safetensors", "some/body"], "none.safetensors: no such weights file"),
        (["push", "spoilt.safetensors", "some/body"], "spoilt.safetensors: its tensors do not match its header"),
        (["push", "bare.safetensors", "some/body"], "bare.safetensors: the header has no kind, data, input, command"),
        (["push", "a b.safetensors", "some/body"], "a b.safetensors: file names on the hub may contain letters"),
        (["push", str(RELEASED / PURIFIER), "some/body", "--license", "x: y"], "license=x: y: expected its name"),
        (["push", str(RELEASED / PURIFIER), "some/body", "--results", "none"], "none: no run.json and table.csv"),
        (["push", str(RELEASED / PURIFIER), "some/body", "--dry-run", "full"], "full/README.md exists already"),
    ],
)
def test_bad_input_is_one_line_and_uploads_nothing(arguments, message, fake_hub, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/README.md").write_text("mine")
    spoilt = bytearray((RELEASED / PURIFIER).read_bytes())
    spoilt[-1] ^= 1
    (tmp_path / "spoilt.safetensors").write_bytes(spoilt)
    weights.save(weights.load(RELEASED / PURIFIER), tmp_path / "bare.safetensors")
    with pytest.raises(SystemExit) as ended:
        hub.main(arguments)
    out = capsys.readouterr()
    assert (ended.value.code, out.out) == (1, "")
    (line,) = out.err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not fake_hub.commits
    assert (tmp_path / "full/README.md").read_text() == "mine"


def test_a_private_push_to_a_public_repository_is_refused(fake_hub):
    fake_hub.public = True
    with pytest.raises(ValueError, match=r"some/body: exists and is public; nothing was uploaded"):
        hub.push(RELEASED / PURIFIER, "some/body", private=True)
    assert not fake_hub.commits
    fake_hub.public = False
    hub.push(RELEASED / PURIFIER, "some/body", private=True)
    assert len(fake_hub.commits) == 1


def test_a_dry_run_uploads_nothing(fake_hub, capsys):
    hub.main(["push", str(RELEASED / PURIFIER), "some/body", "--dry-run", "look"])
    assert capsys.readouterr().out == "wrote look/README.md; nothing was uploaded\n"
    assert not fake_hub.requests and not fake_hub.commits


def card_of(name: str, **changed) -> str:
    header = {**weights.read_header(RELEASED / name), **changed}
    return card(header, f"hf://some/body/{name}", results=RESULTS)


def test_a_card_has_the_figures_of_the_table():
    shown = card_of(PURIFIER)
    headlines = headline(read_table(RESULTS / "table.csv"))
    rows = re.findall(r"^\| (L.*?|no attack) \| (.*?) \| (.*?) \|$", shown, re.MULTILINE)
    keys = [("clean", "", 0.0)] + [
        (threat, "linf", eps / 255) for eps in (8, 25.5) for threat in ("gray_box", "white_box", "worst_case")
    ]
    assert len(rows) == len(keys)
    for (_, *cells), key in zip(rows, keys, strict=True):
        for cell, defence in zip(cells, ("none", "s2snet"), strict=True):
            row = headlines[defence, *key]
            figures = [row[column] for column in ("accuracy", "low", "high")]
            assert [float(number) / 100 for number in re.findall(r"[\d.]+", cell)] == pytest.approx(figures, abs=6e-4)
    assert "**S2SNet:** Broken at L\u221e 25.5/255. At L\u221e 8/255, S2SNet keeps 98.9 % when" in shown
    assert "Measured on 360 test images of digits, with 95 % intervals, under FGSM, APGD-100, APGD-margin-100." in shown
    assert "Broken at every budget." in card_of("classifier-small_cnn.safetensors")
    assert worst("adversarial", 8 / 255) in card_of("adversarial-small_cnn.safetensors")


def test_a_card_without_results_claims_nothing():
    shown = card(weights.read_header(RELEASED / PURIFIER), "hf://some/body/a.safetensors")
    assert "**Not evaluated.**" in shown and "intervals" not in shown and "keeps" not in shown
    front = yaml.safe_load(shown.split("---")[1])
    assert front["license"] == "unknown"  # only the owner can decide it
    assert (front["library_name"], front["datasets"]) == ("s2snet", ["digits"])


def test_figures_of_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"no defence with these weights was evaluated \(fingerprint 000000000000\)"):
        card_of(PURIFIER, fingerprint="0" * 64)


def test_incomplete_results_are_marked(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "r")
    run = json.loads((tmp_path / "r/run.json").read_text())
    run["cells"][0]["status"] = "failed"
    (tmp_path / "r/run.json").write_text(json.dumps(run))
    table = (tmp_path / "r/table.csv").read_text().splitlines()
    table = [re.sub("done$", "incomplete: pgd", row) if row.startswith("s2snet,worst_case") else row for row in table]
    (tmp_path / "r/table.csv").write_text("\n".join(table) + "\n")
    shown = card(weights.read_header(RELEASED / PURIFIER), "hf://some/body/a", results=tmp_path / "r")
    assert "**1 cells failed" in shown
    assert f"| at most {worst('s2snet', 8 / 255)} |" in shown


HOSTILE = [
    "<script>alert(1)</script>",
    "![x](https://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "`</code>`` <b>",
    "a | b\n\n# heading\n---\nlicense: mit\n```\n<i>",
    "https://evil.example www.evil.example me@evil.example",
    "&lt;b&gt; *a* _b_ ~~c~~ $d$ \\<u>",
    "\u202egpj.exe\u2028<s>",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_headers_and_results_are_shown_as_text(bad, tmp_path):
    header = weights.read_header(RELEASED / PURIFIER)
    shutil.copytree(RESULTS, tmp_path / "r")
    run = json.loads((tmp_path / "r/run.json").read_text())
    run["command"] = run["defences"][2]["title"] = run["data"]["name"] = run["cells"][0]["attack"] = bad
    (tmp_path / "r/run.json").write_text(json.dumps(run))
    header |= {"command": bad, "seed": bad, "versions": {bad: bad}, "recipe": {bad: bad}}
    header["module"] |= {"name": bad, bad: [bad]}
    header["data"] |= {"name": bad, "classes": [bad] * 3}
    header["input"] |= {"size": bad}
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

    def tags(shown: str) -> list[str]:
        return re.findall(r"<[^>]*>", renderer.render(shown.split("---\n", 2)[2]))

    shown = card(header, f"hf://some/body/{PURIFIER}", results=tmp_path / "r")
    assert yaml.safe_load(shown.split("---\n")[1]) == {
        "license": "unknown", "library_name": "s2snet", "tags": ["s2snet", "adversarial-robustness"],
    }  # fmt: skip
    harmless = json.loads(json.dumps({"header": header, "run": run}).replace(json.dumps(bad)[1:-1], "word"))
    (tmp_path / "r/run.json").write_text(json.dumps(harmless["run"]))
    assert tags(shown) == tags(card(harmless["header"], f"hf://some/body/{PURIFIER}", results=tmp_path / "r"))
    assert not re.search(r"https?://evil|www\.evil|me@evil", shown.replace(str(line(bad)), ""))
    readable = "".join(c if c.isprintable() else " " for c in bad)
    assert html.unescape(text(bad)) == " ".join(readable.split())


def test_nothing_is_executed(fake_hub, tmp_path):
    """A pickle under a weights file's name."""
    folder = fake_hub.folder / "some/body"
    folder.mkdir(parents=True)

    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save(Harm(), folder / "a.safetensors")
    with pytest.raises(ValueError, match=r"hf://some/body/a.safetensors: truncated or not a .safetensors file"):
        s2snet.load("hf://some/body/a.safetensors")
    assert not (tmp_path / "harm").exists()
