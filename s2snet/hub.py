"""Upload weights and their model card to the Hugging Face hub: `python -m s2snet.hub push FILE user/repo`.

The figures on the card are those of an evaluation of exactly these weights (`--results results/NAME`). Downloads, as in
`s2snet.load("hf://user/repo/file")`, are in s2snet/store/remote.py.
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
    """Upload a weights file and its card in one commit, and return the file's address.

    The repository is created if it does not exist; an existing card is replaced (the hub keeps its history).

    Args:
        file: The .safetensors file written by train.py.
        repo: `user/name` on the hub.
        results: Folder of the evaluation whose figures the card shows.
        licence: Name of the licence on the hub, e.g. apache-2.0.
        private: Create the repository as a private one, and refuse to upload to a public one.
        dry_run: Folder to which the card is written instead of uploading.

    Raises:
        ValueError: If the file cannot be pushed, or the hub refuses; one line.
    """
    file = Path(file)
    address = f"{remote.SCHEME}{repo}/{file.name}"
    if not remote.REPO.fullmatch(repo):
        raise ValueError(f"{repo}: expected a repository, user/name")
    if not remote.ADDRESS.fullmatch(address):
        raise ValueError(f"{file.name}: file names on the hub may contain letters, digits, '.', '_' and '-' only")
    header = weights.load(file).header  # loading verifies the tensors
    try:
        text = card(header, address, licence, results)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if dry_run is not None:
        path = Path(dry_run) / CARD
        if path.exists():
            raise ValueError(f"{path} exists already; give another folder for the card")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
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
        raise ValueError(f"{repo}: exists and is public; nothing was uploaded (omit --private, or use another name)")
    return address


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message} (see `python -m s2snet.hub push --help`)")


def main(arguments: list[str] | None = None) -> None:
    parser = _Parser(prog="python -m s2snet.hub")
    command = parser.add_subparsers(dest="command", required=True).add_parser("push", help="upload weights and card")
    command.add_argument("file", metavar="FILE", help="the .safetensors file written by train.py")
    command.add_argument("repo", metavar="USER/REPO", help="repository on the hub, created if it does not exist")
    command.add_argument("--results", metavar="FOLDER", help="the evaluation whose figures the card shows")
    command.add_argument("--license", dest="licence", default="unknown", help="its name on the hub, e.g. apache-2.0")
    command.add_argument("--private", action="store_true", help="make the repository private")
    command.add_argument("--dry-run", metavar="FOLDER", help="write the card to this folder, upload nothing")
    try:
        options = vars(parser.parse_args(arguments))
        del options["command"]
        address = push(**options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    print(f"wrote {Path(options['dry_run']) / CARD}; nothing was uploaded" if options["dry_run"] else address)


if __name__ == "__main__":
    main()
