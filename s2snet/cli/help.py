"""Write the settings part of `--help`: each key with its value and the help text of its dataclass or YAML file."""

import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from s2snet.cli.conf_dir import conf_dir

COMMENT = re.compile(r"^(\w+): [^#\n]*# (.+)$", re.MULTILINE)  # a key with its comment, at the top level of a file


def settings_help(_root_: DictConfig) -> str:
    """Return the composed config as YAML with comments. For Hydra's template, so that a dollar is doubled."""
    return "\n".join(_lines(_root_, (), "")).replace("$", "$$")


def _lines(node: DictConfig, path: tuple[str, ...], indent: str) -> list[str]:
    texts = _texts(node, path)
    lines = []
    for key in [key for key in node if path or key != "hydra"]:
        child = node._get_node(key)
        comment = f" # {texts[key]}" if texts.get(key) else ""
        if isinstance(child, DictConfig) and not child._is_none() and len(child):
            lines += [f"{indent}{key}:{comment}", *_lines(child, (*path, key), f"{indent}  ")]
        else:
            lines.append(f"{indent}{key}: {_value(child)}{comment}")
    return lines


def _texts(node: DictConfig, path: tuple[str, ...]) -> dict[str, str]:
    """Return the help text of each key: from the dataclass if there is one, else from the file that was chosen."""
    known = getattr(OmegaConf.get_type(node), "__dataclass_fields__", {})
    if known:
        return {name: item.metadata.get("help", "") for name, item in known.items()}
    if not path:
        return {}
    file = conf_dir() / path[0] / f"{path[1] if len(path) > 1 else node.get('name')}.yaml"
    return dict(COMMENT.findall(file.read_text())) if len(path) <= 2 and file.is_file() else {}


def _value(node: Any) -> str:
    if node._is_none():
        return "null"
    if node._is_missing() or node._is_interpolation():
        return str(node._value())
    if isinstance(node, ListConfig):
        return f"[{', '.join(_value(node._get_node(place)) for place in range(len(node)))}]"
    value = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node._value()
    return str(value).lower() if isinstance(value, bool) else str(value)
