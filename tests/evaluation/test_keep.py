"""Adversarial images that are kept on disk, which changes no number."""

import pytest
import torch
from jobs import Blur, crafted, defence, evaluated, files, gray_box, job, pictures, white_box
from safetensors.torch import load_file
from torch import nn

from s2snet.evaluation.job import KEEP_ALL_UP_TO

TWO = [defence("none"), defence("blur", Blur())]
THIRD = defence("twice", nn.Sequential(Blur(), Blur()))
WORDS = {"attacks": {"pgd": {"steps": 2}}, "threats": gray_box() | white_box("exact", "identity")}
NUMBERS = ("rows.parquet", "table.csv", "measures.csv", "curves.csv")


def kept(keep: str, output: str, defences=TWO, **changed):
    return evaluated(output, keep=keep, defences=defences, **(WORDS | changed))[0]


def numbers(folder) -> list[bytes]:
    return [(folder / name).read_bytes() for name in NUMBERS]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The evaluation with all images kept. Not to be written to."""
    return kept("all", tmp_path_factory.mktemp("keep") / "r")


def shards(folder) -> dict[str, int]:
    """{name of a kept file: how many images it has}."""
    return {path.name: len(load_file(path)["image"]) for path in sorted(folder.glob("ledger/crafted/*/*.safetensors"))}


def test_all_keeps_every_image_as_float32(everything):
    assert shards(everything) == {"00000.safetensors": 8, "00001.safetensors": 8, "00002.safetensors": 4}
    for path in everything.glob("ledger/crafted/*/*.safetensors"):
        assert load_file(path)["adversarial"].dtype == torch.float32


def test_sample_keeps_what_the_report_shows(everything):
    folder = kept("sample", "r")
    # of places 0, 9 and 19 one lies in each chunk
    assert shards(folder) == {f"0000{chunk}.sample.safetensors": 1 for chunk in range(3)}
    assert files(folder) == files(everything)
    before = crafted(folder)
    assert files(kept("sample", "r")) == files(everything)
    assert crafted(folder) == before


def test_none_keeps_nothing_and_shows_clean_images_only(everything):
    folder = kept("none", "r")
    assert shards(folder) == {}
    assert numbers(folder) == numbers(everything)
    shown, full = load_file(folder / "samples.safetensors"), load_file(everything / "samples.safetensors")
    assert shown
    assert shown.keys() == {name for name in full if name in ("image", "clean") or name.startswith("purified/clean/")}
    assert all(torch.equal(shown[name], full[name]) for name in shown)


@pytest.mark.parametrize("keep", ["all", "sample", "none"])
def test_a_judge_that_comes_later_gets_the_same_images(keep):
    """From disk where they were kept, and else crafted again."""
    before = crafted(kept(keep, "r"))
    folder = kept(keep, "r", [*TWO, THIRD])
    fresh = kept("all", "fresh", [*TWO, THIRD])
    assert numbers(folder) == numbers(fresh)
    again = [piece for piece in crafted(folder)[len(before) :] if piece in before]
    # the gray box's three chunks, which the third judges too; of the white box nothing
    assert len(again) == {"all": 0, "sample": 3, "none": 3}[keep]


def test_from_none_to_all(everything):
    """Nothing has to be judged again; the images that the report shows are crafted for it."""
    kept("none", "r")
    folder = kept("all", "r")
    assert files(folder) == files(everything)
    assert set(shards(folder)) == {f"0000{chunk}.safetensors" for chunk in range(3)}


def test_more_samples_than_were_kept_are_crafted_for(everything):
    kept("sample", "r", samples=1)
    assert files(kept("sample", "r")) == files(everything)


def test_a_run_that_grows_keeps_its_numbers(everything):
    for keep in ("sample", "none"):
        kept(keep, keep, count=11)
        assert numbers(kept(keep, keep)) == numbers(everything)


def test_what_is_kept_by_default():
    def default(count: int) -> str:
        images = pictures(2)
        images.images = images.images[:1].expand(count, -1, -1, -1)
        return job(images=images).kept

    assert default(KEEP_ALL_UP_TO) == "all"
    assert default(KEEP_ALL_UP_TO + 1) == "sample"
    with pytest.raises(ValueError, match=r"keep=some.*: allowed are all, sample, none"):
        evaluated(keep="some")
