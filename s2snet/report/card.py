"""Write the model card of a weights file: description, robustness, usage and training. Imports no torch.

All content comes from the file's header and a result folder, and is shown as text, never as markup.
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
from s2snet.report.formatting import budget_text, in_order, interval_text, percent, title_of
from s2snet.report.palette import UNDEFENDED

# By kind of run: a title and a description.
KINDS = {
    "classifier": ("Classifier", "An image classifier without any defence."),
    "autoencoder": (
        "Autoencoder",
        "A purifier: an autoencoder trained on images only, used before a classifier.",
    ),
    "s2snet": (
        "S2SNet",
        "A purifier: an autoencoder whose decoder was fine-tuned through a frozen classifier (arXiv 1803.07994).",
    ),
    "adversarial": ("Adversarially trained classifier", "An image classifier trained on FGSM examples."),
}
PURIFIERS = ("autoencoder", "s2snet")
REQUIRED = ("kind", "data", "input", "command")  # keys of the header
MAX_CLASSES = 20  # class names listed
# Characters with a meaning in Markdown or HTML, including automatic links.
_MARKUP = re.compile(r"""[!"#$&*<>@\[\\\]^`{|}~]|:(?=/)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])""", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def card(header: dict[str, Any], address: str, licence: str = "unknown", results: str | Path | None = None) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        header: Header of the weights file.
        address: Future address of the file, hf://user/repo/file.
        licence: Name of the licence on the hub.
        results: Folder of an evaluation of these weights; without it, the card states that there is none.

    Raises:
        ValueError: If `results` evaluated other weights, or the header was not written by train.py; one line.
    """
    missing = [key for key in REQUIRED if key not in header]
    if missing:
        raise ValueError(f"the header has no {', '.join(missing)}; expected a file written by train.py")
    if not _WORD.fullmatch(licence):
        raise ValueError(f"license={licence}: expected its name on the hub, such as apache-2.0 or cc-by-4.0")
    kind, data = header["kind"], str(header["data"]["name"])
    title, description = KINDS[kind]
    purifier = kind in PURIFIERS
    defence = "none" if kind == "classifier" else kind
    command = [
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
            description=description,
            licence=licence,
            data=Markup(data) if _WORD.fullmatch(data) else None,
            evaluated=_evaluated(header, Path(results)) if results is not None else None,
            purifier=purifier,
            address=Markup(address),
            evaluate_command=Markup(" ".join(command)),
            facts=_facts(header),
        )
    )


def text(value: object) -> Markup:
    """Return the value as one line of Markdown text, with markup characters written as character references."""
    printable = "".join(c if c.isprintable() else " " for c in str(value))
    return Markup(_MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(printable.split())))


def line(value: object) -> Markup:
    """Return the value as one line of a code block, in which only line breaks matter."""
    return Markup(" ".join("".join(c if c.isprintable() else " " for c in str(value)).split()))


def _environment() -> Environment:
    """Return a Jinja environment that passes every value through `text` unless it is marked as safe."""
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
    """Return the results of the defences built from these weights alone, and of the undefended classifier."""
    if not (folder / "run.json").is_file() or not (folder / "table.csv").is_file():
        raise ValueError(f"{folder}: no run.json and table.csv; expected a folder written by evaluate.py")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    headlines = headline(read_table(folder / "table.csv"))
    role = "purifier" if header["kind"] in PURIFIERS else "classifier"
    roles = {"purifier": {"classifier", "purifier"}, "classifier": {"classifier"}}[role]
    own = [
        defence
        for defence in run["defences"]
        if defence.get("parts", {}).get(role) == header["fingerprint"] and set(defence["parts"]) == roles
    ]
    if not own:
        raise ValueError(
            f"{folder}: no defence with these weights was evaluated (fingerprint {header['fingerprint'][:12]}); "
            "evaluate them, or push without --results"
        )
    others = [d for d in run["defences"] if d["name"] == UNDEFENDED and d not in own]
    shown, classes = [*others, *own], len(run["classes"])
    rows = [("no attack", (CLEAN, "", 0.0))]  # (title, rest of the key in headlines)
    for norm, budget in verdict.budgets_of(headlines):
        threats = {t for _, t, *rest in headlines if tuple(rest) == (norm, budget)} - {WORST_CASE}
        for threat in [*in_order(threats), WORST_CASE]:
            rows.append((f"{title_of(norm)} {budget_text(budget, norm)}, {title_of(threat)}", (threat, norm, budget)))
    return {
        "summaries": {
            defence["title"]: [
                *(sentence for _, sentence in verdict.summary(headlines, defence["name"], classes)),
                *verdict.sentences(headlines, [defence]),
            ]
            for defence in own
        },
        "titles": [defence["title"] for defence in shown],
        "lines": [(name, [_cell(headlines.get((d["name"], *key))) for d in shown]) for name, key in rows],
        "images": run["data"]["images"],
        "data": run["data"]["name"],
        "attacks": list(dict.fromkeys(_attack(cell) for cell in run["cells"])),
        "failed": sum(cell["status"] != "done" for cell in run["cells"]),
        "command": run["command"],
    }


def _cell(row: dict | None) -> str:
    if row is None or row["accuracy"] is None:
        return "\u2013"
    bound = "at most " if verdict.is_bound(row) else ""
    return f"{bound}{percent(row['accuracy'], unit=False)} ({interval_text(row)})"


def _attack(cell: dict) -> str:
    """Return the attack's title with its number of steps, such as PGD-40."""
    steps = cell["options"].get("steps")
    return title_of(cell["attack"]) + (f"-{steps}" if steps else "")


def _facts(header: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the rows (name, value) of the card's last table, from the header."""
    data, names = header["data"], header["data"].get("classes", [])
    more = ", ..." if len(names) > MAX_CLASSES else ""
    facts = [
        ("architecture", _pairs(header["module"])),
        ("images", ", ".join(f"{data[part]} {part}" for part in ("train", "validation", "test") if part in data)),
        ("classes", f"{len(names)}: {', '.join(map(str, names[:MAX_CLASSES]))}{more}"),
        ("metrics on clean test images", _pairs(header.get("metrics", {}))),
        ("recipe", _pairs(header.get("recipe", {}))),
        ("seed", header.get("seed", "")),
        *((f"fingerprint of the {part}", header[part]) for part in ("autoencoder", "classifier") if part in header),
        ("fingerprint", header["fingerprint"]),
        ("versions", _pairs(header.get("versions", {}))),
    ]
    return [(name, value) for name, value in facts if value != ""]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
