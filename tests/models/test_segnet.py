"""SegNet against the authors' release: sizes, names, order; unpooling; any input size; their state dicts."""

import pytest
import torch
from torch.nn import functional

from s2snet.models import SegNet, load_authors, segnet_small
from s2snet.models.segnet import UNPOOLINGS, soft_shares, unpool_by_indices

NARROW = {"widths": (2, 3, 4, 4, 4), "convs": (2, 2, 3, 3, 3)}
ENCODER = ["11", "12", "21", "22", "31", "32", "33", "41", "42", "43", "51", "52", "53"]
DECODER = ["53d", "52d", "51d", "43d", "42d", "41d", "33d", "32d", "31d", "22d", "21d", "12d", "11d"]
SHAPES = {  # (in, out) of the authors' convolutions
    "conv11": (3, 64), "conv12": (64, 64), "conv21": (64, 128), "conv33": (256, 256), "conv41": (256, 512),
    "conv53": (512, 512), "conv51d": (512, 512), "conv41d": (512, 256), "conv31d": (256, 128),
    "conv21d": (128, 64), "conv11d": (64, 64),
}  # fmt: skip


@pytest.fixture(scope="module")
def full() -> SegNet:
    """The authors' size, without memory for its weights."""
    with torch.device("meta"):
        return SegNet()


def parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def noisy(segnet: SegNet, seed: int = 0) -> SegNet:
    """The same network with every weight and running statistic drawn again, variances positive."""
    draw = torch.Generator().manual_seed(seed)
    for key, tensor in segnet.state_dict().items():
        if key.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
        elif tensor.dtype == torch.float32 and not key.startswith("normalisation."):
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    return segnet.eval()


def test_parameters_are_the_authors(full):
    assert parameters(full) == 29_480_259
    assert parameters(full.encoder) == 14_723_136
    assert parameters(full.decoder) == 14_757_123


@pytest.mark.parametrize("scale, expected", [(0.5, 7_376_547), (0.25, 1_847_379), (0.125, 463_467)])
def test_widths_scale_down(scale, expected):
    with torch.device("meta"):
        assert parameters(SegNet(widths=[int(width * scale) for width in (64, 128, 256, 512, 512)])) == expected


def test_names_and_order_are_the_authors(full):
    names = [f"{kind}{layer}" for layer in ENCODER for kind in ("conv", "bn")]
    assert [name for name, _ in full.encoder.named_children()] == names
    names = [f"{kind}{layer}" for layer in DECODER for kind in ("conv", "bn")]
    assert [name for name, _ in full.decoder.named_children()] == [*names, "conv_final"]
    for name, (wide_in, wide_out) in SHAPES.items():
        part = full.decoder if name.endswith("d") else full.encoder
        assert getattr(part, name).weight.shape == (wide_out, wide_in, 3, 3), name
    assert full.decoder.conv_final.weight.shape == (3, 64, 1, 1)
    assert all(module.bias is not None for module in full.modules() if isinstance(module, torch.nn.Conv2d))


def test_state_has_184_entries(full):
    state = [key for key in full.state_dict() if key.startswith(("encoder.", "decoder."))]
    assert len(state) == 184
    assert sum(key.endswith("num_batches_tracked") for key in state) == 26
    assert len([key for key, _ in full.named_parameters()]) == 106


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (2, 3), (33, 48)])
def test_unpooling_is_torchs_bit_for_bit(size):
    x = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(0))
    pooled, indices = functional.max_pool2d(x, 2, 2, return_indices=True)
    expected = functional.max_unpool2d(pooled, indices, 2, 2, output_size=size)
    assert torch.equal(unpool_by_indices(pooled, indices, size), expected)
    assert expected.count_nonzero() == pooled.count_nonzero() > 0


def test_unpooling_is_deterministic_where_torchs_is_not():
    x = torch.randn(2, 3, 8, 8)
    pooled, indices = functional.max_pool2d(x.requires_grad_(), 2, 2, return_indices=True)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            functional.max_unpool2d(pooled, indices, 2, 2)
        unpool_by_indices(pooled, indices, (8, 8)).sum().backward()
        segnet_small()(torch.rand(1, 1, 16, 16)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(x.grad.sum(), torch.tensor(float(pooled.numel())))


@pytest.mark.parametrize("unpool", UNPOOLINGS)
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (48, 48), (229, 229), (33, 40)])
def test_any_size_keeps_its_shape(unpool, size):
    segnet = SegNet(**NARROW, unpool=unpool).eval()
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        purified = segnet(images)
    assert purified.shape == images.shape
    assert purified.isfinite().all()


@pytest.mark.parametrize("unpool, leads", [("indices", True), ("nearest", False), ("learned", False)])
def test_only_indices_lead_the_way_up(unpool, leads):
    """With the same bottleneck, another image's indices change the output where they are used and nowhere else."""
    segnet = noisy(SegNet(widths=(4, 4), convs=(1, 1), unpool=unpool))
    with torch.no_grad():
        code, other = (segnet.encode(torch.rand(1, 3, 16, 16)) for _ in range(2))
        assert any(not torch.equal(a, b) for a, b in zip(code.indices, other.indices, strict=True))
        same = torch.equal(segnet.decode(code), segnet.decode(code._replace(indices=other.indices)))
    assert same is not leads


@pytest.mark.parametrize("size", [(31, 64), (64, 28), (1, 1)])
def test_too_small_a_side_is_one_line(size):
    with pytest.raises(ValueError) as error:
        SegNet(**NARROW)(torch.rand(1, 3, *size))
    assert str(error.value) == (
        f"images of {size[0]} x {size[1]} are too small for 5 poolings: the shorter side must be at least 32. "
        "Pad or resize the images, or take fewer widths"
    )


@pytest.mark.parametrize(
    "options, line",
    [
        ({"unpool": "index"}, "unpool='index': allowed are indices, nearest, learned"),
        ({"widths": (4, 4), "convs": (1,)}, r"widths=\[4, 4\] and convs=\[1\] must have the same length, at least 1"),
        ({"widths": (), "convs": ()}, "must have the same length, at least 1"),
        ({"mean": (0.5, 0.5)}, r"mean=\[0.5, 0.5\] has 2 values; expected one, or as many as channels, 3 "),
        ({"std": (0.5, 0.0, 0.5)}, "expected values above 0"),
    ],
)
def test_bad_options_are_one_line(options, line):
    with pytest.raises(ValueError, match=line):
        SegNet(**options)


def test_normalisation_is_undone():
    """A decoder that passes its encoder's input on: it returns the image, in [0, 1] units."""
    segnet = SegNet(widths=(2,), convs=(1,), mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3)).eval()
    images = torch.rand(2, 3, 4, 4)
    seen = []
    segnet.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    segnet.decoder.register_forward_hook(lambda *_: seen[0])
    purified = segnet(images)
    mean, std = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], (images - mean) / std)
    torch.testing.assert_close(purified, images)


def test_small_is_a_segnet():
    segnet = segnet_small(channels=3, widths=(4, 8), convs=(1, 1))
    assert isinstance(segnet, SegNet)
    assert segnet.minimum_side == 4
    assert segnet.eval()(torch.rand(2, 3, 28, 28)).shape == (2, 3, 28, 28)


def authors(segnet: SegNet) -> dict:
    """The state as the authors' file holds it: canonical keys, no normalisation."""
    return {key: t.clone() for key, t in segnet.state_dict().items() if not key.startswith("normalisation.")}


WRAPPERS = {
    "canonical": lambda state: state,
    "model_state": lambda state: {"epoch": 3, "model_state": state},
    "module.": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "module.segnet.": lambda state: {f"module.segnet.{key}": tensor for key, tensor in state.items()},
    "flat": lambda state: {key.partition(".")[2]: tensor for key, tensor in state.items()},
    "bytes": lambda state: {key.encode(): tensor for key, tensor in state.items()},
    "all at once": lambda state: {"model_state": {f"module.resnet.{k}".encode(): t for k, t in state.items()}},
}


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS)
def test_authors_files_load(wrapped):
    given, own = noisy(SegNet(**NARROW)), noisy(SegNet(**NARROW), seed=1)
    loaded = load_authors(own, wrapped(authors(given)))
    assert loaded == (184, ())
    for key, tensor in authors(given).items():
        assert torch.equal(own.state_dict()[key], tensor), key


def test_old_files_lack_num_batches_tracked():
    given, own = noisy(SegNet(**NARROW)), noisy(SegNet(**NARROW), seed=1)
    state = {key: t for key, t in authors(given).items() if not key.endswith("num_batches_tracked")}
    assert load_authors(own, state | {"fc.weight": torch.zeros(3)}) == (158, ("fc.weight",))
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(own(images), given(images))


@pytest.mark.parametrize("spoil", ["missing", "reshaped"])
def test_one_unfit_tensor_fails_with_a_count_and_loads_nothing(spoil):
    own = noisy(SegNet(**NARROW), seed=1)
    before, state = authors(own), authors(noisy(SegNet(**NARROW)))
    if spoil == "missing":
        del state["decoder.bn32d.running_var"]
    else:
        state["decoder.bn32d.running_var"] = torch.ones(7)
    with pytest.raises(ValueError, match=r"157 of 158 tensors fit; .*bn32d.running_var") as error:
        load_authors(own, state)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in authors(own).items())


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 19, 23)])
def test_soft_indices_change_no_value_and_fall_back_to_exact_gradients_when_cold(shape):
    segnet = noisy(segnet_small(channels=3, widths=(4, 6), convs=(1, 1), unpool="indices")).double()
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradient(output):
        return torch.autograd.grad((output * cotangent).sum(), images)[0]

    exact = gradient(segnet(images))
    assert torch.equal(segnet.soft(images, 0.3), segnet(images))
    warm, cold = (gradient(segnet.soft(images, temperature)) for temperature in (0.3, 1e-9))
    assert torch.allclose(cold, exact, rtol=1e-9)
    assert (warm - exact).norm() > 0.01 * exact.norm()


def test_a_soft_share_is_the_softmax_over_its_window():
    x = torch.arange(24.0).reshape(1, 1, 3, 8)  # the last row lies in no window
    shares = soft_shares(x, 2.0)
    window = (x[0, 0, :2, 2:4] / 2).flatten().softmax(0).reshape(2, 2)
    assert torch.allclose(shares[0, 0, :2, 2:4], window)
    assert (shares[0, 0, 2] == 0).all()


def test_the_soft_gradient_is_that_of_the_soft_assignment():
    """One pooling, nothing between: the gradient of sum(c * (placed + shares * value)) written out."""
    x = torch.tensor([[[[1.0, 0.5], [0.2, 0.9]]]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([[[[1.0, -2.0], [0.5, 3.0]]]], dtype=torch.float64)
    segnet = segnet_small(widths=(1,), convs=(1,), unpool="indices").double()
    code = segnet.encoder(segnet.normalisation(x), 0.5)  # only to get the tuple; its parts are replaced
    code = code._replace(bottleneck=torch.ones(1, 1, 1, 1).double(), shares=(soft_shares(x, 0.5),))
    (found,) = torch.autograd.grad((segnet.decoder._up(code.bottleneck, code, 1) * c).sum(), x)
    (expected,) = torch.autograd.grad(((x.flatten() / 0.5).softmax(0) * c.flatten()).sum(), x)
    assert torch.allclose(found, expected)
