"""The model card of a weights file: what it is, what it withstands, how to use it, how it was made. Imports no torch.

Says only what the file's header and a result folder say; whatever they hold (class names, commands, titles) is shown
as text, never as markup.
"""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import verdict
from s2snet.report.palette import UNDEFENDED
from s2snet.report.words import budget_text, in_order, interval_text, percent, title_of

# By kind of run (s2snet/runs.py): a title, and a sentence.
KINDS = {
    "classifier": ("Classifier", "An image classifier without any defence."),
    "autoencoder": ("Autoencoder", "A purifier: an autoencoder trained on images alone, to stand before a classifier."),
    "s2snet": (
        "S2SNet",
        "A purifier: an autoencoder whose decoder was then trained through a frozen classifier (arXiv 1803.07994).",
    ),
    "adversarial": ("Adversarially trained classifier", "An image classifier trained on FGSM examples."),
}
PURIFIERS = ("autoencoder", "s2snet")
NEEDED = ("kind", "data", "input", "command")
MOST_CLASSES = 20  # names of classes that are listed
# What Markdown or HTML could take for more than text, also where it makes links of bare addresses.
_MARKUP = re.compile(r"""[!"#$&*<>@\[\\\]^`{|}~]|:(?=/)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])""", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def card(header: dict[str, Any], address: str, licence: str = "unknown", results: str | Path | None = None) -> str:
    """Markdown with YAML front matter, for a file with this header that will be at `address` (hf://user/repo/file).

    `results` is the folder of an evaluation that judged these weights; without it the card says that there was none.
    ValueError, in one line, where it judged others or the header is not of train.py.
    """
    lacking = [key for key in NEEDED if key not in header]
    if lacking:
        raise ValueError(f"the header has no {', '.join(lacking)}: a card is written for what train.py made")
    if not _WORD.fullmatch(licence):
        raise ValueError(f"license={licence}: one word as the hub knows it, such as apache-2.0 or cc-by-4.0")
    kind, data = header["kind"], str(header["data"]["name"])
    title, what = KINDS[kind]
    purifier = kind in PURIFIERS
    defence = "none" if kind == "classifier" else kind
    words = [
        "python evaluate.py",
        *([f"data={data}"] if _WORD.fullmatch(data) else []),
        f"defence=[{','.join(dict.fromkeys(['none', defence]))}]",
        f"defence.{defence}.{'purifier' if purifier else 'classifier'}={address}",
    ]
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            header=header,
            title=title,
            what=what,
            licence=licence,
            data=Markup(data) if _WORD.fullmatch(data) else None,
            evaluated=_evaluated(header, Path(results)) if results is not None else None,
            purifier=purifier,
            address=Markup(address),
            use=Markup(" ".join(words)),
            facts=_facts(header),
        )
    )


def text(value: object) -> Markup:
    """The value as one line of Markdown text: what could be markup is written as character references."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return Markup(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(shown.split())))


def line(value: object) -> Markup:
    """The value as one line of a code block, where nothing is markup but a line's end."""
    return Markup(" ".join("".join(c if c.isprintable() else " " for c in str(value)).split()))


def _environment() -> Environment:
    """Jinja that puts every value through `text` unless it is marked as safe."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        finalize=lambda value: value if isinstance(value, Markup) else text(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"line": line}
    return jinja


def _evaluated(header: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What an evaluation says of the defences that these weights alone make, beside the undefended classifier."""
    if not (folder / "run.json").is_file() or not (folder / "table.csv").is_file():
        raise ValueError(f"{folder}: no run.json and table.csv there; give the folder that evaluate.py wrote")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    speaking = headline(read_table(folder / "table.csv"))
    role = "purifier" if header["kind"] in PURIFIERS else "classifier"
    roles = {"purifier": {"classifier", "purifier"}, "classifier": {"classifier"}}[role]
    about = [
        defence
        for defence in run["defences"]
        if defence.get("parts", {}).get(role) == header["fingerprint"] and set(defence["parts"]) == roles
    ]
    if not about:
        raise ValueError(
            f"{folder}: judged no defence with these weights (fingerprint {header['fingerprint'][:12]}); "
            "evaluate them, or push without --results"
        )
    others = [d for d in run["defences"] if d["name"] == UNDEFENDED and d not in about]
    shown, classes = [*others, *about], len(run["classes"])
    where = [("no attack", (CLEAN, "", 0.0))]
    for norm, budget in verdict.budgets_of(speaking):
        threats = {t for _, t, *at in speaking if tuple(at) == (norm, budget)} - {WORST_CASE}
        for threat in [*in_order(threats), WORST_CASE]:
            where.append((f"{title_of(norm)} {budget_text(budget, norm)}, {title_of(threat)}", (threat, norm, budget)))
    return {
        "said": {
            defence["title"]: [
                *(sentence for _, sentence in verdict.summary(speaking, defence["name"], classes)),
                *verdict.sentences(speaking, [defence]),
            ]
            for defence in about
        },
        "titles": [defence["title"] for defence in shown],
        "lines": [(name, [_cell(speaking.get((d["name"], *key))) for d in shown]) for name, key in where],
        "images": run["data"]["images"],
        "data": run["data"]["name"],
        "attacks": list(dict.fromkeys(_attack(cell) for cell in run["cells"])),
        "failed": sum(cell["status"] != "done" for cell in run["cells"]),
        "command": run["command"],
    }


def _cell(found: dict | None) -> str:
    if found is None or found["accuracy"] is None:
        return "\u2013"
    bound = "at most " if verdict.is_bound(found) else ""
    return f"{bound}{percent(found['accuracy'], unit=False)} ({interval_text(found)})"


def _attack(cell: dict) -> str:
    """PGD-40, where it has steps."""
    steps = cell["options"].get("steps")
    return title_of(cell["attack"]) + (f"-{steps}" if steps else "")


def _facts(header: dict[str, Any]) -> list[tuple[str, Any]]:
    """What the header says beside the command, as (name, value) of the card's last table."""
    data, names = header["data"], header["data"].get("classes", [])
    more = ", ..." if len(names) > MOST_CLASSES else ""
    facts = [
        ("architecture", _pairs(header["module"])),
        ("images", ", ".join(f"{data[part]} {part}" for part in ("train", "validation", "test") if part in data)),
        ("classes", f"{len(names)}: {', '.join(map(str, names[:MOST_CLASSES]))}{more}"),
        ("without attacks, on the test images", _pairs(header.get("metrics", {}))),
        ("recipe", _pairs(header.get("recipe", {}))),
        ("seed", header.get("seed", "")),
        *((f"fingerprint of the {part}", header[part]) for part in ("autoencoder", "classifier") if part in header),
        ("fingerprint", header["fingerprint"]),
        ("versions", _pairs(header.get("versions", {}))),
    ]
    return [(name, value) for name, value in facts if value != ""]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
