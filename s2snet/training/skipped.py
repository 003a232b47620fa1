"""The damaged images of a run: passed over, each named once in damaged.txt, and counted at the end."""

from pathlib import Path
from typing import Any

from s2snet.atomic_io import write_whole
from s2snet.data.image_files import find_damaged

DAMAGED = "damaged.txt"


class Skipped:
    """Notes damaged images in FOLDER/damaged.txt, from any rank or worker process. A resumed run goes on in it."""

    def __init__(self, folder: Path):
        self.path = folder / DAMAGED
        self._known: set[str] = set()

    def note(self, line: str) -> None:
        """One line, `FILE: reason`; a process says each once."""
        if line in self._known:
            return
        self._known.add(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:  # one write at the end of the file: processes don't mix
            file.write(f"{line}\n".encode())

    def without(self, images: Any, part: str) -> Any:
        """The images less those that are damaged, found by reading all of them once; ValueError where none is left."""
        found = find_damaged(images, range(len(images)))
        if not found:
            return images
        if len(found) == len(images):
            first = next(iter(found.values()))
            raise ValueError(f"none of the {len(images)} {part} images can be read; the first: {first}")
        for line in found.values():
            self.note(line)
        return images.only([place for place in range(len(images)) if place not in found])

    def count(self) -> int:
        """How many there were; puts each on one line of the file, in order."""
        if not self.path.is_file():
            return 0
        lines = sorted(set(self.path.read_text().splitlines()))
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode())
        return len(lines)
