"""Stream samples from tar shards, on disk or at a URL, without writing to disk.

As in WebDataset, a sample is a run of members with the same stem: `000123.jpg` with its label in `000123.cls` (a
number) or `000123.json` (key `label`). Other members, such as a caption in `000123.txt`, are skipped. Shards are not
trusted: names, links, sizes and headers are checked before content is read.
"""

import glob
import hashlib
import itertools
import json
import re
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")  # files that count as shards in a folder
IMAGES = ("jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp", "ppm")
MAX_BYTES = 2**26  # of a member; 67 MB
MAX_HEADER_BYTES = 2**20  # of an extended header (long names, pax), which tarfile keeps in memory
MAX_SHARDS = 10**6  # in one pair of braces
TRIES, BACKOFF_S, TIMEOUT_S = 3, 1.0, 30.0  # for a URL; the backoff doubles


@dataclass(frozen=True)
class Sample:
    """A sample of a shard: image and label, or the rule that rejected it and the reason.

    `place` is the sample's number in the shard, counting rejected samples too, so that (shard, place) is unambiguous.
    `label` is -1 if there is none.
    """

    place: int
    name: str  # SHARD/STEM.EXTENSION
    image: bytes = b""  # encoded
    label: int = -1
    rejected: str | None = None  # duplicate, no_image, refused, broken_shard
    reason: str = ""


def expand(shards: str | list[str], root: Path | None = None) -> list[str]:
    """Return the shards that one or more patterns match, sorted by name; local patterns are relative to `root`.

    A pattern is a file, a folder, a glob or a URL; braces are a range (`{000000..000019}`) or a list (`{a,b}`). Raises
    ValueError if a local pattern matches nothing. URLs are not contacted until they are read.
    """
    names: list[str] = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in _braces(pattern, pattern):
            names += [name] if _scheme(name) else _local(name, root or Path(), pattern)
    for scheme in {_scheme(name) for name in names} - {"", "http", "https"}:
        _check_scheme(scheme)
    return sorted(set(names))


def samples(shard: str) -> Iterator[Sample]:
    """Yield all samples of a shard in order, including those rejected, with the reason.

    Byte-identical images within the shard are marked as duplicates. If the shard breaks off, a last sample with the
    reason replaces the one being read, whose label may be missing.
    """
    hashes: set[bytes] = set()
    place = itertools.count()
    try:
        for stem, members in itertools.groupby(_members(shard), key=lambda member: member.stem):
            image = label = None
            for member in members:
                if member.refused:
                    yield Sample(next(place), f"{shard}/{member.name!r}", rejected="refused", reason=member.refused)
                elif member.extension in IMAGES:
                    image = image or member
                elif member.extension in ("cls", "json"):
                    label = _label(member) if label is None else label
            if image is None:
                if label is not None:
                    yield Sample(next(place), f"{shard}/{stem!r}", rejected="no_image", reason="a label without image")
                continue
            digest = hashlib.blake2b(image.content, digest_size=16).digest()
            duplicate = {"rejected": "duplicate", "reason": "seen before in this shard"} if digest in hashes else {}
            hashes.add(digest)
            name = f"{shard}/{image.name}"
            yield Sample(next(place), name, image.content, -1 if label is None else label, **duplicate)
        count = next(place)
        if count == 0:
            yield Sample(0, shard, rejected="broken_shard", reason="contains no sample")
    except _Broken as error:
        yield Sample(next(place), shard, rejected="broken_shard", reason=str(error))


@dataclass(frozen=True)
class _Member:
    name: str
    content: bytes = b""
    refused: str = ""

    @property
    def stem(self) -> str:
        """The folder and the file name up to its first dot."""
        path = PurePosixPath(self.name)
        return str(path.parent / path.name.partition(".")[0])

    @property
    def extension(self) -> str:
        """The file name after its first dot: `seg.png` differs from `png`."""
        return PurePosixPath(self.name).name.partition(".")[2].lower()


class _Broken(Exception):
    """Raised if the rest of a shard cannot be read; the message is the reason."""


class _Header(tarfile.TarInfo):
    """A stricter header of a member.

    tarfile treats a damaged header, or a file truncated between two members, as the end of the archive, and reads
    extended headers of any length into memory.
    """

    EXTENDED = (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from None
            raise  # end-of-archive marker
        if header.size < 0:
            raise tarfile.ReadError("negative member size")
        if header.type in cls.EXTENDED and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"extended header of {header.size:,} bytes")
        return header


class _Response:
    """A web server's response. Raises ConnectionError if it ends early, which http.client treats as the end."""

    def __init__(self, url: str):
        self.response = urllib.request.urlopen(url, timeout=TIMEOUT_S)

    def read(self, size: int) -> bytes:
        content = self.response.read(size)
        if not content and self.response.length:
            raise ConnectionError(f"connection ended {self.response.length:,} bytes early")
        return content

    def close(self) -> None:
        self.response.close()


def _members(shard: str) -> Iterator[_Member]:
    """Yield the members of a shard except folders. A failing URL is retried, continuing after the last member read.

    Raises _Broken if the shard cannot be read to its end.
    """
    yielded = 0
    for attempt in range(1, TRIES + 1):
        try:
            with closing(_open(shard)) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as tar:
                for number, member in enumerate(tar):
                    if number >= yielded and not member.isdir():
                        yield _read(tar, member)
                    yielded = max(yielded, number + 1)
                    tar.members.clear()  # otherwise tarfile keeps all of them
            return
        except Exception as error:  # broken archives raise many types: zlib.error, EOFError, ...
            if not _scheme(shard) or attempt == TRIES:
                tries = f" ({attempt} tries)" if attempt > 1 else ""
                raise _Broken(f"{' '.join(str(error).split()) or type(error).__name__}{tries}") from None
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    name = member.name
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return _Member(name, refused="its name points outside the shard")
    if not member.isreg() or member.sparse is not None:
        return _Member(name, refused="a link, a device or another special member")
    if member.size > MAX_BYTES:
        return _Member(name, refused=f"expected at most {MAX_BYTES:,} bytes, got {member.size:,}")
    skipped = _Member(name)
    used = skipped.extension in (*IMAGES, "cls", "json")
    return _Member(name, tar.extractfile(member).read()) if used else skipped


def _label(member: _Member) -> int:
    """Return the label in a .cls or .json member, or -1."""
    try:
        label: Any = json.loads(member.content)
    except (ValueError, RecursionError):
        return -1
    if member.extension == "json":
        label = label.get("label") if isinstance(label, dict) else None
    return label if type(label) is int and 0 <= label < 2**31 else -1


def _open(shard: str):
    scheme = _scheme(shard)
    if scheme in ("http", "https"):
        return _Response(shard)
    if scheme:
        import fsspec

        return fsspec.open(shard, "rb").open()
    return open(shard, "rb")


def _scheme(name: str) -> str:
    """Return `https` for `https://...`, or an empty string for a local path."""
    match = re.match(r"([a-z][a-z0-9+.-]*)://", name)
    return match[1] if match else ""


def _check_scheme(scheme: str) -> None:
    """Raise ValueError unless the installed fsspec supports this scheme (s3, gs, hf, ...)."""
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"data.shards={scheme}://...: {' '.join(str(error).split())}") from None


def _braces(name: str, pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with braces expands to, from left to right."""
    braces = re.search(r"\{([^{}]*)\}", name)
    if not braces:
        yield name
        return
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if ends:
        first, last = int(ends[1]), int(ends[2])
        width = len(ends[1]) if ends[1].startswith("0") else 0
        valid = 1 <= last - first + 1 <= MAX_SHARDS
        choices = (f"{number:0{width}d}" for number in range(first, last + 1))
    else:
        choices = braces[1].split(",")
        valid = 2 <= len(choices) <= MAX_SHARDS
    if not valid:
        raise ValueError(
            f"data.shards={pattern}: expected a range such as {{000..019}} or a list such as {{a,b}}, got {braces[0]}"
        )
    for choice in choices:
        yield from _braces(name[: braces.start()] + choice + name[braces.end() :], pattern)


def _local(name: str, root: Path, pattern: str) -> list[str]:
    """Return the files of a local path: the file itself, the shards in a folder, or the matches of a glob."""
    path = root / Path(name).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.name.endswith(ARCHIVES)]
        problem = f"no shards ({', '.join(ARCHIVES)}) in {path}"
    else:
        matches = glob.glob(str(Path(name).expanduser()), root_dir=root, recursive=True)
        files = [root / match for match in matches if (root / match).is_file()]
        problem = f"no such file or folder: {path}"
    if not files:
        raise ValueError(f"data.shards={pattern}: {problem}")
    return [str(file) for file in files]
