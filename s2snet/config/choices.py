"""Report a mistyped word in one line: what was given, the nearest match, what is allowed."""

import difflib
from collections.abc import Iterable


def nearest(word: object, allowed: Iterable[object]) -> str:
    """Return ` (did you mean 'x'?)`, or an empty text if no allowed word resembles this one."""
    match = difflib.get_close_matches(str(word), [str(other) for other in allowed], n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def check_key(prefix: str, key: str, allowed: Iterable[str]) -> None:
    """ValueError, in one line, for a key that is no setting. `prefix` is what comes before it, such as `stage1.`."""
    allowed = list(allowed)
    if key not in allowed:
        hint = nearest(key, allowed)
        raise ValueError(f"unknown setting {prefix}{key}{hint}: allowed here are {', '.join(allowed)}")


def choose(name: str, value: object, allowed: Iterable[object]) -> None:
    """ValueError, in one line, unless the value is one of the allowed."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value}{nearest(value, allowed)}: allowed are {', '.join(map(str, allowed))}")
