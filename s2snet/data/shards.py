"""Samples out of tar shards, from disk or from a URL, one after the other: nothing is ever written to disk.

A sample is a run of members with one stem, in WebDataset's way: `000123.jpg` with its label in `000123.cls` (a number)
or in `000123.json` (key `label`). Other members, such as a caption in `000123.txt`, are passed over. What comes from
outside is not trusted: names, links, sizes and headers are looked at before content is read.
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

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")  # what counts in a folder of shards
IMAGES = ("jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp", "ppm")
LARGEST = 2**26  # bytes of a member that is read; 67 MB
LARGEST_HEADER = 2**20  # bytes of an extended header (long names, pax), which tarfile keeps in memory
MOST_SHARDS = 10**6  # that braces may stand for
TRIES, BACKOFF_S, TIMEOUT_S = 3, 1.0, 30.0  # of a URL; the wait doubles


@dataclass(frozen=True)
class Sample:
    """A sample as it lies in its shard: image and label, or the rule by which there is none and the reason.

    `place` counts the shard's samples; `label` is -1 where there is none. What is refused or broken takes a place too,
    so that (shard, place) means the same whoever counts.
    """

    place: int
    name: str  # SHARD/STEM.EXTENSION
    image: bytes = b""  # encoded
    label: int = -1
    rejected: str | None = None  # duplicate, no_image, refused, broken_shard
    reason: str = ""


def expand(shards: str | list[str], root: Path | None = None) -> list[str]:
    """The shards, in order of their names, that a pattern or several stand for; local ones lie below `root`.

    A pattern is a file, a folder, a glob or a URL; braces are a range (`{000000..000019}`) or a list (`{a,b}`).
    ValueError, in one line, for what is not there; whether a URL answers shows when it is read.
    """
    found: list[str] = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in _braces(pattern, pattern):
            found += [name] if _scheme(name) else _local(name, root or Path(), pattern)
    for scheme in {_scheme(name) for name in found} - {"", "http", "https"}:
        _known(scheme)
    return sorted(set(found))


def samples(shard: str) -> Iterator[Sample]:
    """All samples of a shard, as they lie in it; those that cannot be had are there with the reason.

    Exact duplicates (of bytes) within the shard are marked. Where the shard breaks off, a last one says so in place of
    the sample that was being read, which may lack its label.
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
            twice = {"rejected": "duplicate", "reason": "seen before in this shard"} if digest in hashes else {}
            hashes.add(digest)
            name = f"{shard}/{image.name}"
            yield Sample(next(place), name, image.content, -1 if label is None else label, **twice)
        count = next(place)
        if count == 0:
            yield Sample(0, shard, rejected="broken_shard", reason="holds no sample")
    except _Broken as error:
        yield Sample(next(place), shard, rejected="broken_shard", reason=str(error))


@dataclass(frozen=True)
class _Member:
    name: str
    content: bytes = b""
    refused: str = ""

    @property
    def stem(self) -> str:
        """Folder and name up to the first dot of the name."""
        path = PurePosixPath(self.name)
        return str(path.parent / path.name.partition(".")[0])

    @property
    def extension(self) -> str:
        """All after the first dot: `seg.png` is another thing than `png`."""
        return PurePosixPath(self.name).name.partition(".")[2].lower()


class _Broken(Exception):
    """A shard that cannot be read on; the text is the reason."""


class _Header(tarfile.TarInfo):
    """A member's header, strict where tarfile is silent.

    tarfile takes a damaged header, or a file that is cut off between two members, for the archive's end; and reads
    an extended header of any length into memory.
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
            raise  # the mark of the end
        if header.size < 0:
            raise tarfile.ReadError("a member of negative size")
        if header.type in cls.EXTENDED and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"extended header of {header.size:,} bytes")
        return header


class _Response:
    """A web server's answer. http.client takes a connection that ends early for the end: here it is an error."""

    def __init__(self, url: str):
        self.answer = urllib.request.urlopen(url, timeout=TIMEOUT_S)

    def read(self, size: int) -> bytes:
        content = self.answer.read(size)
        if not content and self.answer.length:
            raise ConnectionError(f"connection ended {self.answer.length:,} bytes early")
        return content

    def close(self) -> None:
        self.answer.close()


def _members(shard: str) -> Iterator[_Member]:
    """The members of a shard but folders. A URL that fails is tried again, and goes on after what it gave. _Broken."""
    given = 0
    for attempt in range(1, TRIES + 1):
        try:
            with closing(_open(shard)) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as tar:
                for number, member in enumerate(tar):
                    if number >= given and not member.isdir():
                        yield _read(tar, member)
                    given = max(given, number + 1)
                    tar.members.clear()  # tarfile keeps them all
            return
        except Exception as error:  # a broken archive makes its readers raise whatever: zlib.error, EOFError, ...
            if not _scheme(shard) or attempt == TRIES:
                tries = f" ({attempt} tries)" if attempt > 1 else ""
                raise _Broken(f"{' '.join(str(error).split()) or type(error).__name__}{tries}") from None
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    name = member.name
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return _Member(name, refused="its name climbs out of the shard")
    if not member.isreg() or member.sparse is not None:
        return _Member(name, refused="a link, a device or another special member")
    if member.size > LARGEST:
        return _Member(name, refused=f"{member.size:,} bytes; at most {LARGEST:,} are read")
    found = _Member(name)
    wanted = found.extension in (*IMAGES, "cls", "json")
    return _Member(name, tar.extractfile(member).read()) if wanted else found


def _label(member: _Member) -> int:
    """The label in a .cls or .json member, or -1."""
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
    """`https` of `https://...`; nothing for a local path."""
    found = re.match(r"([a-z][a-z0-9+.-]*)://", name)
    return found[1] if found else ""


def _known(scheme: str) -> None:
    """ValueError unless fsspec reads this scheme (s3, gs, hf, ...) with what is installed."""
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"data.shards={scheme}://...: {' '.join(str(error).split())}") from None


def _braces(name: str, pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for, from left to right."""
    found = re.search(r"\{([^{}]*)\}", name)
    if not found:
        yield name
        return
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if ends:
        first, last = int(ends[1]), int(ends[2])
        width = len(ends[1]) if ends[1].startswith("0") else 0
        choices = [f"{number:0{width}d}" for number in range(first, min(last, first + MOST_SHARDS) + 1)]
    else:
        choices = found[1].split(",")
    if len(choices) < (1 if ends else 2) or len(choices) > MOST_SHARDS:
        raise ValueError(
            f"data.shards={pattern}: {found[0]} is neither a range such as {{000..019}} nor a list such as {{a,b}}"
        )
    for choice in choices:
        yield from _braces(name[: found.start()] + choice + name[found.end() :], pattern)


def _local(name: str, root: Path, pattern: str) -> list[str]:
    """The files of a local path: itself, what a folder holds, or what a glob matches."""
    path = root / Path(name).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.name.endswith(ARCHIVES)]
        what = f"no shards ({', '.join(ARCHIVES)}) in {path}"
    else:
        matches = glob.glob(str(Path(name).expanduser()), root_dir=root, recursive=True)
        found = [root / match for match in matches if (root / match).is_file()]
        what = f"no such file or folder: {path}"
    if not found:
        raise ValueError(f"data.shards={pattern}: {what}")
    return [str(file) for file in found]
