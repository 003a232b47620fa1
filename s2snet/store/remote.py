"""Weights files on the Hugging Face hub: `hf://user/repo/file`, or `hf://user/repo@revision/file`. Imports no torch.

A file is downloaded once, into huggingface_hub's own cache, and only read.
"""

import logging
import re
from pathlib import Path

SCHEME = "hf://"
INSTALL = "pip install huggingface_hub (the extra `hub`)"
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_REVISION = r"(@(?P<revision>[A-Za-z0-9._-]+))?"
REPO = re.compile(f"{_NAME}/{_NAME}")
ADDRESS = re.compile(f"{SCHEME}(?P<repo>{REPO.pattern}){_REVISION}/(?P<file>{_NAME}(/{_NAME})*)")


def is_address(path: object) -> bool:
    """Whether this names a file on the hub and not one on disk."""
    return str(path).startswith(SCHEME)


def local(path: str | Path) -> Path:
    """The file itself, or the downloaded copy of an address. ValueError in one line where there is none."""
    if not is_address(path):
        return Path(path)
    found = ADDRESS.fullmatch(str(path))
    if not found:
        raise ValueError(f"{path}: not an address; write hf://user/repo/file or hf://user/repo@revision/file")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise ValueError(f"{path}: huggingface_hub is not installed; {INSTALL}") from None
    download = hub.hf_hub_download  # imported only now, which sets its logger's level
    chatter = logging.getLogger("huggingface_hub")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # a line per retry
    try:
        return Path(download(found["repo"], found["file"], revision=found["revision"]))
    except Exception as error:
        raise ValueError(f"{path}: {reason(error)}") from None
    finally:
        chatter.setLevel(level)


def reason(error: Exception) -> str:
    """Why the hub did not do what was asked, in one line."""
    from huggingface_hub import errors

    known = [
        (errors.GatedRepoError, "its owner has to let you in first, and you have to be logged in (`hf auth login`)"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one and no login (`hf auth login`)"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and the file was not downloaded before"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.OfflineModeIsEnabled, "the hub cannot be reached: offline mode is on (HF_HUB_OFFLINE)"),
        (errors.LocalTokenNotFoundError, "no login; run `hf auth login` or set HF_TOKEN"),
    ]
    for kind, words in known:
        if isinstance(error, kind):
            return words
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return "not allowed; run `hf auth login`, or set HF_TOKEN, with a token that may write there"
    said = " ".join(str(error).split())[:200] or type(error).__name__
    unreachable = {"TransportError", "ConnectionError"} & {kind.__name__ for kind in type(error).__mro__}
    return f"the hub cannot be reached ({said})" if unreachable else said
