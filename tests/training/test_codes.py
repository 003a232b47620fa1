"""Kept codes: they are returned unchanged, and stage 2 trains to the same weights with and without them."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny import train

from s2snet import models, train_purifier
from s2snet.models.segnet import Encoder
from s2snet.store import weights
from s2snet.training.codes import Codes


@pytest.fixture(scope="module")
def segnet():
    """A SegNet whose sides are odd on the way down, for images of 23 x 30."""
    torch.manual_seed(0)
    return models.build("segnet_small", widths=[4, 6, 8], convs=[1, 1, 1], unpool="indices").eval()


@pytest.fixture
def code(segnet):
    """The code of five images."""
    with torch.no_grad():
        return segnet.encode(torch.rand(5, 1, 23, 30))


def test_indices_come_back_from_a_quarter_byte_each(segnet, code):
    (packed,) = segnet.pack(code).indices
    places = sum(where[0].numel() for where in code.indices)
    assert packed.dtype == torch.uint8 and packed.shape == (5, -(-places // 4))
    assert all(map(torch.equal, segnet.unpack(segnet.pack(code)).indices, code.indices))
    assert len({where.unique().numel() for where in code.indices}) > 1


def test_a_nested_code_comes_back_with_its_structure_types_and_formats():
    draw = torch.Generator().manual_seed(0)
    flags = torch.rand(3, 7, generator=draw) < 0.5  # seven bytes: what follows starts at an odd one
    image, numbers = torch.rand(3, 4, 6, 5, generator=draw), torch.rand(3, generator=draw)
    codes = Codes(3)
    code = (flags, (image.double(), "for all images", (image.contiguous(memory_format=torch.channels_last),)), numbers)
    codes.put(torch.arange(3), code, torch.tensor([2, 0, 1]))
    (bits, (double, text, (channels_last,)), scalars), labels = codes.get(torch.tensor([2, 1]))
    assert text == "for all images" and labels.tolist() == [1, 0]
    for back, given in ((bits, flags), (double, image.double()), (channels_last, code[1][2][0]), (scalars, numbers)):
        assert torch.equal(back, given[[2, 1]]) and back.dtype == given.dtype
        assert back.stride() == given[:2].stride()


def test_a_code_may_be_one_tensor():
    codes, code = Codes(3), torch.rand(3, 2, 2)
    codes.put(torch.arange(3), code, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(codes.get(torch.tensor([1]))[0], code[1:2])


@pytest.mark.parametrize("kept_in", [None, "codes"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_codes_come_back_in_any_order(segnet, code, kept_in, kind, memory_format, tmp_path):
    codes = Codes(5, folder=tmp_path / kept_in if kept_in else None)
    code = code._replace(bottleneck=code.bottleneck.to(kind).contiguous(memory_format=memory_format))
    labels = torch.tensor([3, 1, 4, 1, 5])
    index = torch.tensor([70, 10, 50, 20, 30])
    assert codes.get(index) is None
    codes.put(index, segnet.pack(code), labels)
    for order in ([4, 0, 2], [1], [0, 1, 2, 3, 4]):
        back, back_labels = codes.get(index[order])
        back = segnet.unpack(back)
        assert torch.equal(back.bottleneck, code.bottleneck[order])
        assert back.bottleneck.stride() == code.bottleneck[order].contiguous(memory_format=memory_format).stride()
        assert all(torch.equal(a, b[order]) for a, b in zip(back.indices, code.indices, strict=True))
        assert back.sizes == code.sizes
        assert torch.equal(back_labels, labels[order])
    assert codes.get(torch.tensor([70, 71])) is None  # not all there
    if kept_in:
        assert not list((tmp_path / kept_in).iterdir())  # the file has no name, so nothing of it can be left


def test_a_code_that_is_there_stays_as_it_is(code):
    codes = Codes(5)
    codes.put(torch.arange(5), code, torch.zeros(5, dtype=torch.int64))
    codes.put(torch.arange(5), code._replace(bottleneck=code.bottleneck + 1), torch.ones(5, dtype=torch.int64))
    back, labels = codes.get(torch.arange(5))
    assert torch.equal(back.bottleneck, code.bottleneck) and not labels.any()


def test_what_cannot_fit_is_said_before_it_is_kept(segnet, code, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10**6, "SC_PAGE_SIZE": 4000}.get)
    code = segnet.pack(code)
    size = 4 * code.bottleneck[0].numel() + code.indices[0].shape[1] + 8
    for folder, where in ((None, "this machine has 4.0 GB"), (tmp_path, f"{tmp_path} has room for 1.0 GB")):
        with pytest.raises(ValueError) as error:
            Codes(4 * 10**9, processes=2, folder=folder).put(torch.arange(5), code, torch.zeros(5, dtype=torch.int64))
        assert str(error.value) == (
            f"recipes.stage2.cache={'disk' if folder else 'memory'}: 4000000000 codes of {size / 1e6:.2f} MB in 2 "
            f"process(es) need {8 * size:.1f} GB; {where}; use cache=none"
        )


def test_a_full_disk_is_one_line(code, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError) as error:
        Codes(5, folder=tmp_path).put(torch.arange(5), code, torch.zeros(5, dtype=torch.int64))
    assert str(error.value) == f"recipes.stage2.cache=disk: {tmp_path}: No space left on device"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """Weights of a tiny autoencoder that unpools by indices, next to the classifier of `trained`."""
    path = tmp_path_factory.mktemp("indexed") / "autoencoder"
    few = ["recipes.stage1.epochs=1", "recipes.stage1.batch_size=256"]
    return train("stage=1", f"output={path}", "autoencoder.unpool=indices", *few)


@pytest.mark.parametrize(
    "unpool, labels, batch_size, caches",
    [
        ("indices", "classifier", 431, ("memory", "disk")),  # 1,293 images in three batches, none left over
        ("nearest", "truth", 200, ("memory",)),  # 93 left over in each epoch, met and kept in a later one
    ],
)
def test_weights_are_the_same_bit_for_bit(unpool, labels, batch_size, caches, trained, indexed, monkeypatch):
    encoded = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, *given: encoded.append(len(given[0])) or forward(self, *given))
    words = ["stage=2", f"runs={trained}", f"autoencoder.unpool={unpool}", f"recipes.stage2.labels={labels}"]
    words += ["recipes.stage2.shift=0", f"recipes.stage2.batch_size={batch_size}", "recipes.stage2.epochs=3"]
    words += [f"from_autoencoder={indexed}"] if unpool == "indices" else []
    passes = {}

    def state(cache: str) -> dict:
        encoded.clear()
        found = weights.load(train(*words, f"recipes.stage2.cache={cache}", f"output={cache}")).state_dict()
        passes[cache] = encoded.count(batch_size)
        return found

    plain = state("none")
    for cache in caches:
        kept = state(cache)
        assert not [key for key, tensor in plain.items() if not torch.equal(tensor, kept[key])], cache
    if batch_size == 431:
        assert passes == {"none": 9, "memory": 3, "disk": 3}


def test_a_unet_trains_in_both_stages_and_the_same_with_kept_codes(tmp_path):
    """Nothing of SegNet is needed: another code, no indices, no BatchNorm."""
    torch.manual_seed(0)
    classifier = models.build("small_cnn", widths=[4], classes=3).eval()
    images = torch.rand(40, 1, 9, 8), torch.arange(40) % 3
    states = {}
    for cache in ("none", "memory"):
        output = tmp_path / cache
        tuned = train_purifier(
            classifier, images, "unet", options={"widths": [4, 6]}, output=output, device="cpu", progress=False,
            stage1={"epochs": 1}, stage2={"epochs": 2, "shift": 0, "batch_size": 9, "cache": cache},
        )  # fmt: skip
        begun = weights.load(output / "autoencoder" / "weights.safetensors")
        states[cache] = tuned.state_dict()
        assert all(map(torch.equal, tuned.encoder.state_dict().values(), begun.encoder.state_dict().values()))
        assert begun.decoder.conv_final.weight.any()  # stage 1 has left the identity, by its noise
        assert not torch.equal(tuned.decoder.conv_final.weight, begun.decoder.conv_final.weight)
    assert all(torch.equal(tensor, states["memory"][key]) for key, tensor in states["none"].items())
