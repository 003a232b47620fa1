"""Test tar shards: patterns, reading of sound and broken ones, rules of rejection, and held-out images."""

import http.server
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tars import encoded, jpeg, member, pictures, write_shards, write_tar

from s2snet import data
from s2snet.data import shards
from s2snet.data.webdataset import Rejected

SMALL = {"size": 16, "resize": 20}


def kept(shard) -> list[tuple[str, int]]:
    """Return (name in the shard, label) of each sample that is not rejected on reading."""
    return [(s.name.removeprefix(f"{shard}/"), s.label) for s in shards.samples(str(shard)) if not s.rejected]


def rejected(shard) -> list[tuple[str, str]]:
    return [(s.rejected, s.reason) for s in shards.samples(str(shard)) if s.rejected]


# patterns


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a/{00..02}.tar", ["a/00.tar", "a/01.tar", "a/02.tar"]),
        ("a/{0{1,2},10}.tar", ["a/01.tar", "a/02.tar", "a/10.tar"]),
        ("a", ["a/00.tar", "a/01.tar", "a/02.tar", "a/10.tar"]),
        ("a/0*.tar", ["a/00.tar", "a/01.tar", "a/02.tar"]),
        (["a/02.tar", "a/0{0,2}.tar"], ["a/00.tar", "a/02.tar"]),
    ],
)
def test_patterns_of_local_shards(tmp_path, pattern, names):
    for name in ("00", "01", "02", "10"):
        write_tar(tmp_path / f"a/{name}.tar", [])
    (tmp_path / "a/readme.txt").write_text("no shard")
    assert shards.expand(pattern, tmp_path) == [str(tmp_path / name) for name in names]
    assert shards.expand(pattern) == names  # below the working folder


def test_braces_of_urls():
    names = shards.expand("https://host/{a,b}-{008..010}.tar")
    assert names == [f"https://host/{letter}-{number}.tar" for letter in "ab" for number in ("008", "009", "010")]


@pytest.mark.parametrize(
    "pattern, line",
    [
        ("nowhere.tar", "data.shards=nowhere.tar: no such file or folder: nowhere.tar"),
        ("no*.tar", "data.shards=no*.tar: no such file or folder: no*.tar"),
        ("empty", "data.shards=empty: no shards (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz) in empty"),
        ("x{3}.tar", "data.shards=x{3}.tar: expected a range such as {000..019} or a list such as {a,b}, got {3}"),
        ("x{5..3}.tar", "data.shards=x{5..3}.tar: expected a range such as {000..019} or a list such as {a,b}, got {5"),
        ("x{0..9999999}.tar", "data.shards=x{0..9999999}.tar: expected a range such as {000..019} or a list "),
        ("nosuch://host/x.tar", "data.shards=nosuch://...: Protocol not known: nosuch"),
    ],
)
def test_missing_shards_are_one_line(pattern, line):
    Path("empty").mkdir()
    with pytest.raises(ValueError) as error:
        shards.expand(pattern)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


# samples of a shard


@pytest.mark.parametrize("name, mode", [("plain.tar", "w"), ("packed.tar.gz", "w:gz"), ("packed.tar.xz", "w:xz")])
def test_samples_are_members_of_one_stem(tmp_path, name, mode):
    members = [
        member("dir", type=tarfile.DIRTYPE),
        member("dir/a.cls", "3\n"),
        member("dir/a.jpg", jpeg(1)),
        member("b.JPEG", jpeg(2)),
        member("b.json", '{"label": 7, "caption": "x"}'),
        member("b.seg.png", jpeg(3)),  # a mask, as WebDataset names it
        member("c.png", encoded(Image.new("L", (40, 40)))),
        member("c.txt", "12"),
        member("d.jpg", jpeg(4)),
        member("d.cls", "cat"),
        member("e.jpg", jpeg(5)),
        member("e.json", "[" * 100_000),
        member("f.txt", "only a caption"),
        member("g.cls", "1"),
        member("h.jpg", jpeg(6)),
        member("h.cls", "-1"),
    ]
    shard = write_tar(tmp_path / name, members, mode)
    labels = [("dir/a.jpg", 3), ("b.JPEG", 7), ("c.png", -1), ("d.jpg", -1), ("e.jpg", -1), ("h.jpg", -1)]
    assert kept(shard) == labels
    assert rejected(shard) == [("no_image", "a label without image")]
    samples = list(shards.samples(str(shard)))
    assert [sample.place for sample in samples] == list(range(len(samples)))
    assert samples[0].image == jpeg(1)


def test_members_outside_the_shard_are_refused_by_name_and_nothing_is_written(tmp_path):
    hostile = [
        member("../out.jpg", jpeg(1)),
        member("a/../../out.jpg", jpeg(1)),
        member("/out.jpg", jpeg(1)),
        member("..\\out.jpg", jpeg(1)),
        member("C:out.jpg", jpeg(1)),
        member("link.jpg", type=tarfile.SYMTYPE, linkname="/etc/hostname"),
        member("hard.jpg", type=tarfile.LNKTYPE, linkname="../out.jpg"),
        member("null.jpg", type=tarfile.CHRTYPE),
        member("pipe.jpg", type=tarfile.FIFOTYPE),
    ]
    shard = write_tar(tmp_path / "in/hostile.tar", [*pictures(0, 1), *hostile, *pictures(1, 1)])
    before = sorted(tmp_path.rglob("*"))
    assert kept(shard) == [("000000.jpg", -1), ("000001.jpg", -1)]
    outside, special = "its name points outside the shard", "a link, a device or another special member"
    assert rejected(shard) == [("refused", outside)] * 5 + [("refused", special)] * 4
    assert sorted(tmp_path.rglob("*")) == before
    assert next(s.name for s in shards.samples(str(shard)) if s.rejected) == f"{shard}/'../out.jpg'"


def test_a_member_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BYTES", 5_000)
    shard = write_tar(tmp_path / "a.tar", [member("big.jpg", bytes(6_000)), *pictures(0, 2)])
    assert rejected(shard) == [("refused", "expected at most 5,000 bytes, got 6,000")]
    assert len(kept(shard)) == 2


def test_duplicates_are_marked_within_a_shard(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [*pictures(0, 3), member("twin.jpg", jpeg(1))])
    assert rejected(shard) == [("duplicate", "seen before in this shard")]


def broken(path: Path) -> dict[str, bytes]:
    """Return damaged versions of a shard with four images, intact up to the second, by name."""
    whole = write_tar(path / "whole.tar", pictures(0, 4)).read_bytes()
    with tarfile.open(path / "whole.tar") as tar:
        third = tar.getmembers()[2]
    long_name = write_tar(path / "long.tar", [*pictures(0, 2), member("x" * 200_000 + ".jpg", jpeg(1))]).read_bytes()
    return {
        "cut in a member": whole[: third.offset_data + 100],
        "cut in a header": whole[: third.offset + 100],
        "cut between members": whole[: third.offset],
        "damaged header": whole[: third.offset] + b"\xff" * 512 + whole[third.offset_data :],
        "extended header too long": long_name,
    }


@pytest.mark.parametrize(
    "how",
    ["cut in a member", "cut in a header", "cut between members", "damaged header", "extended header too long"],
)
def test_a_broken_shard_gives_its_whole_samples_and_says_so(tmp_path, monkeypatch, how):
    """The second image is there, but its label may be missing."""
    monkeypatch.setattr(shards, "MAX_HEADER_BYTES", 100_000)
    shard = tmp_path / "broken.tar"
    shard.write_bytes(broken(tmp_path)[how])
    assert [name for name, _ in kept(shard)] == ["000000.jpg"]
    ((rule, reason),) = rejected(shard)
    assert rule == "broken_shard" and reason and "\n" not in reason


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, bytes(2048)])
def test_an_empty_shard_is_broken(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    assert [rule for rule, _ in rejected(tmp_path / "a.tar")] == ["broken_shard"]


# remote shards


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(address, requests so far, [number of next responses that break off]) of a web server on tmp_path."""
    requests, breaks = [], [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = (tmp_path / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            broken, breaks[0] = breaks[0] > 0, max(0, breaks[0] - 1)
            self.wfile.write(content[: len(content) // 2] if broken else content)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(shards, "BACKOFF_S", 0.0)
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, args=[0.02], daemon=True).start()  # seconds until it stops
    yield f"http://127.0.0.1:{serving.server_port}", requests, breaks
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize("breaking, count", [(0, 1), (2, 3)])
def test_a_url_is_read_like_a_file_and_retried_if_it_breaks_off(tmp_path, server, breaking, count):
    address, requests, breaks = server
    breaks[0] = breaking
    shard = write_tar(tmp_path / "a.tar", pictures(0, 9, labels=5))
    assert kept(f"{address}/a.tar") == kept(shard)
    assert rejected(shard) == [] and len(requests) == count


def test_a_url_that_breaks_off_three_times_is_a_broken_shard(tmp_path, server):
    address, requests, breaks = server
    breaks[0] = 3
    whole = write_tar(tmp_path / "a.tar", pictures(0, 9))
    received = kept(f"{address}/a.tar")
    assert 0 < len(received) < 9 and received == kept(whole)[: len(received)]
    breaks[0] = 3
    ((rule, reason),) = rejected(f"{address}/a.tar")
    assert rule == "broken_shard" and reason.endswith("(3 tries)")
    assert len(requests) == 6


def test_a_dead_url_is_a_broken_shard(monkeypatch):
    monkeypatch.setattr(shards, "BACKOFF_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    ((rule, reason),) = rejected("http://127.0.0.1:9/a.tar")
    assert rule == "broken_shard" and "refused" in reason and reason.endswith("(3 tries)")


def test_other_schemes_go_through_fsspec(tmp_path):
    import fsspec

    shard = write_tar(tmp_path / "a.tar", pictures(0, 3))
    with fsspec.open("memory://bucket/a.tar", "wb") as file:
        file.write(shard.read_bytes())
    assert kept(shards.expand("memory://bucket/{a,a}.tar")[0]) == kept(shard)


# rules of rejection


def noise(height: int, width: int) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)))


REJECTED = {
    "undecodable": (None, jpeg(0)[:200]),
    "small": ("least_side", noise(20, 40)),
    "aspect": ("most_aspect", noise(32, 140)),
    "constant": ("least_std", encoded(Image.new("RGB", (40, 40), (200, 10, 10)))),
    "duplicate": ("duplicates", jpeg(0, 40, 40)),
}


@pytest.mark.parametrize("rule", REJECTED)
def test_each_rule_rejects_its_image_and_can_be_switched_off(tmp_path, rule):
    option, image = REJECTED[rule]
    members = [member("good.jpg", jpeg(0, 40, 40)), member("bad.png", image)]
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", [*members, member("more.jpg", jpeg(1, 40, 40))])
    train = data.load("webdataset", shards=str(tmp_path), **SMALL).train
    good, bad, _ = train.samples(0)
    assert train.picture(good).size == (40, 40)
    with pytest.raises(Rejected) as error:
        train.picture(bad)
    assert error.value.rule == rule
    assert str(error.value).startswith(f"{tmp_path}/0.tar/bad.png: ") and "\n" not in str(error.value)
    if option:
        train = data.load("webdataset", shards=str(tmp_path), reject={option: None}, **SMALL).train
        assert train.picture(bad).mode == "RGB"


# images and splits


def test_the_last_shards_are_held_out_and_validate_and_test_by_turns(tmp_path):
    write_shards(tmp_path, shards=5, each=6, labels=4)
    options = {"shards": str(tmp_path), "held_out_shards": 2, "reject": {"least_side": 8}, "classes": 4, **SMALL}
    splits = data.load("webdataset", held_out_images=9, epoch_images=20, **options)
    assert [Path(name).stem for name in splits.train.names] == ["shard-000", "shard-001", "shard-002"]
    assert splits.validation.index.tolist() == [0, 2, 4, 6, 8] and splits.test.index.tolist() == [1, 3, 5, 7]
    expected = [number % 4 for number in range(18, 27)]  # the first held-out picture is number 18
    assert splits.validation.labels.tolist() == expected[0::2] and splits.test.labels.tolist() == expected[1::2]
    image, _, _ = splits.test[0]
    assert image.dtype == torch.float32 and image.min() >= 0 and 0.1 < image.max() <= 1
    facts = splits.facts()
    assert (facts["train"], facts["validation"], facts["test"]) == (20, 5, 4)
    fingerprint = facts["train_fingerprint"]
    assert data.load("webdataset", **options).train.fingerprint() == fingerprint
    (tmp_path / "shard-000.tar").write_bytes((tmp_path / "shard-001.tar").read_bytes() + bytes(512))
    assert data.load("webdataset", **options).train.fingerprint() != fingerprint


def test_held_out_images_without_a_known_label_are_left_out_if_others_have_one(tmp_path):
    write_shards(tmp_path, shards=2, each=8, labels=4)
    options = {"shards": str(tmp_path), "reject": {"least_side": 8}, **SMALL}
    splits = data.load("webdataset", classes=3, **options)
    assert (
        splits.labelled and splits.validation.labels.tolist() == [0, 2, 1] and splits.test.labels.tolist() == [1, 0, 2]
    )
    write_shards(tmp_path, shards=2, each=8)
    splits = data.load("webdataset", classes=3, **options)
    assert not splits.labelled and len(splits.validation) == len(splits.test) == 4


def test_a_picture_that_would_grow_beyond_memory_is_undecodable(tmp_path):
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", [*pictures(0, 2), member("z.png", encoded(Image.new("L", (60_000, 1))))])
    off = dict.fromkeys(("least_side", "most_aspect", "least_std"))
    train = data.load("webdataset", shards=str(tmp_path), reject=off, **SMALL | {"resize": 200}).train
    with pytest.raises(
        Rejected, match=r"z.png: 60000 x 1 pixels, too narrow to resize the shorter side to 200$"
    ) as error:
        train.picture(list(train.samples(0))[-1])
    assert error.value.rule == "undecodable"


@pytest.mark.parametrize(
    "options, line",
    [
        ({"shards": None}, "data.shards is required: "),
        ({"held_out_shards": 2}, "data.held_out_shards=2: expected fewer than the shards found (2), or none are left"),
        ({"held_out_shards": 0}, "data.held_out_shards=0: at least 1"),
        ({"held_out_images": 1}, "data.held_out_images=1: at least 2"),
        ({"epoch_images": 0}, "data.epoch_images=0: at least 1"),
        ({"shuffle": 0}, "data.shuffle=0: at least 1"),
        ({"resize": 12}, "data.resize=12: expected an integer of at least data.size=16"),
        ({"channels": 2}, "data.channels=2: expected 1 or 3"),
        ({"reject": {"least_sid": 3}}, "data.reject.least_sid (did you mean 'least_side'?): allowed are least_side, "),
        ({"reject": {"least_std": "x"}}, "data.reject.least_std=x: expected a number of at least 0, or null"),
        ({"reject": {"duplicates": 1}}, "data.reject.duplicates=1: expected true, false or null"),
        ({"reject": {}}, "data.held_out_shards=1: expected at least 2 images, to validate and to test, got 0 in b.tar; "
         "rejected: 3 small, the first is b.tar/000000.jpg: expected at least 32 pixels per side, got 24"),
    ],
)  # fmt: skip
def test_invalid_options_are_one_line(options, line):
    for name in "ab":
        write_tar(Path(f"{name}.tar"), pictures(0, 3))
    options = {"shards": "{a,b}.tar", "reject": {"least_side": 8}, **SMALL, **options}
    with pytest.raises(ValueError) as error:
        data.load("webdataset", **options)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_training_on_a_stream_requires_its_length(tmp_path):
    write_shards(tmp_path, shards=2, each=2)
    train = data.load("webdataset", shards=str(tmp_path), reject={"least_side": 8}, **SMALL).train
    with pytest.raises(ValueError, match=r"^data.epoch_images is required for training: "):
        len(train)
