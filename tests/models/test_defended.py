"""`Defended`, freezing, and building modules by name: what every module of MODULES must do."""

import json

import pytest
import torch

from s2snet.models import AUTOENCODERS, CLASSIFIERS, MODULES, PURIFIERS, Defended, Identity, build, freeze

SMALL = {
    "segnet": {"channels": 1, "widths": [2, 4], "convs": [1, 1], "mean": [0.5], "std": [0.5]},
    "torchvision": {"arch": "squeezenet1_1", "classes": 10},
    "timm": {"arch": "resnet10t", "classes": 10},
    "neutralised_per_input": {"classifier": {"name": "small_cnn", "widths": [4]}},
    "custom": {"target": "torch.nn:AdaptiveAvgPool2d", "options": {"output_size": 1}},
}
SOFT = {  # options with which a purifier has choices to soften
    "segnet": {"unpool": "indices"},
    "segnet_small": {"unpool": "indices"},
    "neutralised": {"classes": 10, "classifier": {"name": "small_cnn", "widths": [4]}},
}


def small(name: str, **more):
    if name == "timm":
        pytest.importorskip("timm")
    return build(name, **SMALL.get(name, {}), **more).eval()


@pytest.mark.parametrize("name", MODULES)
def test_modules_keep_what_they_were_built_from(name):
    module = small(name)
    assert module.config["name"] == name
    assert module.config == json.loads(json.dumps(module.config))
    again = build(**module.config)
    assert again.config == module.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "custom"])
@pytest.mark.parametrize("size", [28, 33, 64])
def test_classifiers_give_logits_for_any_size(name, size):
    module = small(name, **({"size": size} if name == "mlp" else {}))  # which is for one size
    with torch.no_grad():
        logits = module(torch.rand(2, module.config["channels"], size, size))
    assert logits.shape == (2, 10)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("size", [28, 33, 64])
def test_purifiers_keep_the_shape(name, size):
    images = torch.rand(2, 1, size, size)
    with torch.no_grad():
        assert small(name)(images).shape == images.shape


def leaves(code) -> list:
    """Everything in a code that is no tuple."""
    return [leaf for part in code for leaf in leaves(part)] if isinstance(code, tuple) else [code]


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoders_can_be_trained_in_two_stages(name):
    """They fulfil the contract in s2snet/models/__init__.py."""
    module, images = small(name), torch.rand(2, 1, 16, 16)
    code = module.encode(images)
    assert torch.equal(module.decode(code), module(images))
    tensors = [leaf for leaf in leaves(code) if isinstance(leaf, torch.Tensor)]
    assert tensors and all(len(tensor) == 2 for tensor in tensors)
    halves = [*module.encoder.parameters(), *module.decoder.parameters()]
    assert {id(parameter) for parameter in module.parameters()} == {id(parameter) for parameter in halves}
    if hasattr(module, "pack"):
        assert torch.equal(module.decode(module.unpack(module.pack(code))), module(images))
    freeze(module.train().encoder)
    module(images).square().sum().backward()
    assert all(parameter.grad is None for parameter in module.encoder.parameters())
    assert any(parameter.grad.any() for parameter in module.decoder.parameters())


@pytest.mark.parametrize("name", PURIFIERS)
def test_soft_purifiers_give_the_same_images(name):
    """`softens` and `soft` fulfil the contract in s2snet/models/__init__.py."""
    module, images = small(name, **SOFT.get(name, {})), torch.rand(2, 1, 32, 32)
    assert getattr(module, "softens", False) == hasattr(module, "soft")
    if hasattr(module, "soft"):
        assert torch.equal(module.soft(images, 0.1), module(images))


@pytest.mark.parametrize(
    "name, options, line",
    [
        ("segnet_smal", {}, "unknown module 'segnet_smal' (did you mean 'segnet_small'?); allowed are "),
        ("os.system", {}, "unknown module 'os.system'; allowed are "),
        ("small_cnn", {"width": [4]}, "small_cnn has no option 'width' (did you mean 'widths'?); allowed are "),
    ],
)
def test_unknown_names_and_options_are_one_line(name, options, line):
    with pytest.raises(ValueError) as error:
        build(name, **options)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_defended_is_the_classifier_on_the_purified_image():
    purifier, classifier = small("segnet_small"), small("small_cnn")
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(Defended(purifier, classifier)(images), classifier(purifier(images)))
        assert torch.equal(Defended(None, classifier)(images), classifier(images))
        assert not torch.equal(classifier(purifier(images)), classifier(images))
    assert Defended(purifier, classifier).has_purifier
    assert not Defended(None, classifier).has_purifier
    assert torch.equal(Identity()(images), images)


def test_freeze_is_eval_without_gradients():
    module = freeze(small("small_cnn").train())
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    images = torch.rand(4, 1, 16, 16, requires_grad=True)
    module(images).sum().backward()
    assert images.grad.abs().sum() > 0  # gradients pass through it all the same
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_an_mlp_without_hidden_layers_is_softmax_regression():
    module = build("mlp", channels=2, size=3, classes=4, hidden=[])
    images = torch.rand(5, 2, 3, 3)
    (weight, bias) = module.layers[1].parameters()
    assert torch.equal(module(images), torch.nn.functional.linear((images.flatten(1) - 0.5) / 0.5, weight, bias))
