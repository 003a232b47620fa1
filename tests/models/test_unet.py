"""The residual U-Net: the identity to begin with, any size, and noise in stage 1 only."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from s2snet.config.networks import Autoencoder
from s2snet.models import Defended, build, freeze
from s2snet.store import networks
from s2snet.threats import ROUTES

SMALL = {"widths": [4, 6, 8]}


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def tuned(**options):
    """A U-Net whose last layer is not zero any more."""
    torch.manual_seed(0)
    unet = build("unet", **SMALL, **options)
    torch.nn.init.normal_(unet.decoder.conv_final.weight)
    return unet.eval()


def test_untrained_it_is_the_identity_with_the_gradient_of_one():
    unet = build("unet", channels=3, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).eval()
    x = images(2, 3, 17, 9).requires_grad_()
    assert torch.equal(unet(x), x)
    assert torch.equal(torch.autograd.grad(unet(x).sum(), x)[0], torch.ones_like(x))
    unet(x.detach()).sum().backward()  # all the same the last layer learns at once
    assert unet.decoder.conv_final.weight.grad.abs().sum() > 0


def test_its_size_is_the_documented_one():
    assert sum(parameter.numel() for parameter in build("unet").parameters()) == 118_625


@pytest.mark.parametrize("widths", [[4], [4, 6], [4, 6, 8]])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (33, 16)])
def test_any_size_keeps_its_shape(widths, size):
    unet = build("unet", widths=widths).eval()
    torch.nn.init.normal_(unet.decoder.conv_final.weight)
    x = images(2, 1, *size)
    purified = unet(x)
    assert purified.shape == x.shape and purified.isfinite().all()
    assert (purified - x).flatten(1).abs().amax(dim=1).gt(0.01).all()


def test_every_level_reaches_the_output():
    unet = tuned()
    code = unet.encode(images(1, 1, 8, 8))
    assert [tuple(part.shape[1:]) for part in code] == [(1, 8, 8), (4, 8, 8), (6, 4, 4), (8, 2, 2)]
    for place, part in enumerate(code):
        changed = (*code[:place], part + torch.randn(part.shape), *code[place + 1 :])
        assert not torch.allclose(unet.decode(changed), unet.decode(code)), place


def test_an_image_does_not_depend_on_its_batch_in_training_mode_either():
    unet, x = tuned(noise=0.0), images(3, 1, 8, 8)
    together = unet.eval()(x)
    assert torch.equal(unet.train()(x), together)
    torch.testing.assert_close(torch.cat([unet(image[None]) for image in x]), together)


def test_noise_is_that_of_the_option_and_only_while_the_encoder_trains():
    unet, x = build("unet", noise=0.2, widths=[4]), images(64, 1, 16, 16)
    seen = unet.train().encode(x)[0]
    assert (seen - x).std() == pytest.approx(0.2, rel=0.02)
    assert not torch.equal(unet.encode(x)[0], seen)
    freeze(unet.encoder)  # as stage 2 does; the decoder stays in training mode
    assert unet.training and torch.equal(unet.encode(x)[0], x)
    error = functional.mse_loss(build("unet", widths=[4]).train()(x), x).item()
    assert error == pytest.approx(0.01, rel=0.1)  # what stage 1 begins with: the noise's variance


def test_there_is_nothing_to_soften():
    assert not ROUTES["soft"].offered(Defended(tuned(), torch.nn.Flatten()), False)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"widths": []}, r"^widths=\[\]: expected at least one level, each of 2 channels or more$"),
        ({"widths": [4, 1]}, r"^widths=\[4, 1\]: expected at least one level"),
        ({"noise": -0.1}, r"^noise=-0.1: expected a standard deviation of at least 0$"),
    ],
)
def test_bad_options_are_one_line(options, line):
    with pytest.raises(ValueError, match=line):
        build("unet", **options)


def test_too_small_a_side_is_one_line():
    with pytest.raises(ValueError, match=r"^images of 3 x 9 are too small for 2 poolings: .* at least 4\. Pad or"):
        tuned()(images(1, 1, 3, 9))


def test_weights_for_a_segnet_are_refused_in_one_line():
    unet = build("unet", **SMALL)
    with pytest.raises(ValueError, match=r"^from_vgg16=vgg.pth: needs a SegNet; autoencoder=unet is none$"):
        networks.begin_with_vgg16(unet, "vgg.pth", None)
    with pytest.raises(ValueError, match=r"^authors.pth: a state dict needs a SegNet; autoencoder=unet is none$"):
        networks.load_autoencoder("authors.pth", SimpleNamespace(autoencoder=Autoencoder.of(unet.config)))
