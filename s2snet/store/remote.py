"""Read weights files from the Hugging Face hub: `hf://user/repo/file`, or `hf://user/repo@revision/file`.

A file is downloaded once, into huggingface_hub's own cache. Imports no torch.
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
    """Return whether this is a file on the hub and not one on disk."""
    return str(path).startswith(SCHEME)


def local(path: str | Path) -> Path:
    """Return the file itself, or the downloaded copy of an address. ValueError, in one line, if it cannot be read."""
    if not is_address(path):
        return Path(path)
    address = ADDRESS.fullmatch(str(path))
    if not address:
        raise ValueError(f"{path}: not an address; write hf://user/repo/file or hf://user/repo@revision/file")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise ValueError(f"{path}: huggingface_hub is not installed; {INSTALL}") from None
    download = hub.hf_hub_download  # this imports the submodule, which sets the logger's level
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it logs a line per retry
    try:
        return Path(download(address["repo"], address["file"], revision=address["revision"]))
    except Exception as error:
        raise ValueError(f"{path}: {reason(error)}") from None
    finally:
        logger.setLevel(level)


def reason(error: Exception) -> str:
    """Return the reason of a failed request to the hub, in one line."""
    from huggingface_hub import errors

    known = [
        (errors.GatedRepoError, "access must be granted by its owner, and needs a login (`hf auth login`)"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one that needs a login (`hf auth login`)"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and the file was not downloaded before"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.OfflineModeIsEnabled, "the hub cannot be reached: offline mode is on (HF_HUB_OFFLINE)"),
        (errors.LocalTokenNotFoundError, "no login; run `hf auth login` or set HF_TOKEN"),
    ]
    for kind, message in known:
        if isinstance(error, kind):
            return message
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return "not allowed; run `hf auth login`, or set HF_TOKEN, with a token that may write there"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    unreachable = {"TransportError", "ConnectionError"} & {kind.__name__ for kind in type(error).__mro__}
    return f"the hub cannot be reached ({text})" if unreachable else text
