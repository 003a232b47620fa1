"""`python -m s2snet.hub push FILE user/repo`: weights on the Hugging Face hub, with a card that says what they are.

The card's figures are those of an evaluation (`--results results/NAME`) that judged exactly these weights. How weights
come back, `s2snet.load("hf://user/repo/file")`, is in s2snet/remote.py.
"""

import argparse
import sys
from pathlib import Path

from s2snet.report.card import card
from s2snet.store import remote, weights

CARD = "README.md"


def push(
    file: str | Path,
    repo: str,
    results: str | Path | None = None,
    licence: str = "unknown",
    private: bool = False,
    dry_run: str | Path | None = None,
) -> str:
    """Uploads a weights file and its card in one commit; returns the file's address.

    The repository is made where it does not exist; a card that is there is replaced (the hub keeps its history).
    `dry_run` is a folder into which the card is written, and nothing is sent. ValueError, in one line, for what
    cannot be pushed and where the hub refuses.
    """
    file = Path(file)
    address = f"{remote.SCHEME}{repo}/{file.name}"
    if not remote.REPO.fullmatch(repo):
        raise ValueError(f"{repo}: not a repository; write user/name")
    if not remote.ADDRESS.fullmatch(address):
        raise ValueError(f"{file.name}: the hub takes names of letters, digits, '.', '_' and '-'")
    header = weights.load(file).header  # whole, and the tensors those of the header
    try:
        text = card(header, address, licence, results)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if dry_run is not None:
        there = Path(dry_run) / CARD
        if there.exists():
            raise ValueError(f"{there} is there already; give another folder for the card")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text, encoding="utf-8")
        return address
    try:
        import huggingface_hub as hub
    except ImportError:
        raise ValueError(f"{repo}: huggingface_hub is not installed; {remote.INSTALL}") from None
    try:
        api = hub.HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
        public = private and not api.model_info(repo).private
        if not public:
            contents = {file.name: str(file), CARD: text.encode()}
            operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
            api.create_commit(repo, operations, commit_message=f"{file.name}, {header['fingerprint'][:12]}")
    except Exception as error:
        raise ValueError(f"{repo}: {remote.reason(error)}") from None
    if public:
        raise ValueError(f"{repo}: exists and is public; nothing was sent (leave --private out, or take another name)")
    return address


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message} (see `python -m s2snet.hub push --help`)")


def main(words: list[str] | None = None) -> None:
    parser = _Parser(prog="python -m s2snet.hub")
    command = parser.add_subparsers(dest="command", required=True).add_parser("push", help="upload weights and card")
    command.add_argument("file", metavar="FILE", help="the .safetensors that train.py wrote")
    command.add_argument("repo", metavar="USER/REPO", help="on the hub; made where it does not exist")
    command.add_argument("--results", metavar="FOLDER", help="the evaluation whose figures the card shows")
    command.add_argument("--license", dest="licence", default="unknown", help="as the hub knows it, e.g. apache-2.0")
    command.add_argument("--private", action="store_true", help="make the repository private")
    command.add_argument("--dry-run", metavar="FOLDER", help="write the card there and send nothing")
    try:
        given = vars(parser.parse_args(words))
        del given["command"]
        address = push(**given)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    print(f"{Path(given['dry_run']) / CARD}: nothing was sent" if given["dry_run"] else address)


if __name__ == "__main__":
    main()
