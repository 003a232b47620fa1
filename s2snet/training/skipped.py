"""Skip damaged images: list each once in damaged.txt and count them at the end of a run."""

from pathlib import Path
from typing import Any

from s2snet.atomic_io import write_whole
from s2snet.data.image_files import find_damaged

DAMAGED = "damaged.txt"


class Skipped:
    """The list FOLDER/damaged.txt, written by any rank or worker process. A resumed run appends to it."""

    def __init__(self, folder: Path):
        self.path = folder / DAMAGED
        self._known: set[str] = set()

    def note(self, line: str) -> None:
        """Append a line `FILE: reason`, once per process."""
        if line in self._known:
            return
        self._known.add(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:  # one unbuffered append: lines of several processes do not mix
            file.write(f"{line}\n".encode())

    def without(self, images: Any, part: str) -> Any:
        """Return the images without the damaged ones, after reading each once; ValueError if none is left."""
        broken = find_damaged(images, range(len(images)))
        if not broken:
            return images
        if len(broken) == len(images):
            first = next(iter(broken.values()))
            raise ValueError(f"none of the {len(images)} {part} images can be read; the first: {first}")
        for line in broken.values():
            self.note(line)
        return images.only([place for place in range(len(images)) if place not in broken])

    def count(self) -> int:
        """Return how many there were, after sorting the file and removing repeated lines."""
        if not self.path.is_file():
            return 0
        lines = sorted(set(self.path.read_text().splitlines()))
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode())
        return len(lines)
