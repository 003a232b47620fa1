"""Files that are whole or absent: in which order they are written, synced and named, and what a failure leaves."""

import errno
import os

import pytest

from s2snet.atomic_io import make_whole, write_whole


def test_content_is_synced_before_the_file_has_its_name_and_the_folder_after(tmp_path, monkeypatch):
    path, calls, replace = tmp_path / "new" / "file", [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("named") or replace(*names))
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    assert calls == [path.stat().st_ino, "named", path.parent.stat().st_ino]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(place):
        place.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"file could not be written \(No space left on device\)"):
        make_whole(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
