"""The ResNets for 32 x 32: their size, their published weights, and what is refused."""

from pathlib import Path

import pytest
import torch

from s2snet.models import CLASSIFIERS, build, load_published
from s2snet.store import weights

# Parameters as counted by the publisher of the weights (akamaster/pytorch_resnet_cifar10).
PARAMETERS = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published(name):
    network = build(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    assert network.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def published(network) -> dict:
    """A state dict as the publisher saves it."""
    own = {key: value for key, value in network.state_dict().items() if not key.startswith("normalisation.")}
    return {"state_dict": {f"module.{key}": value.clone() for key, value in own.items()}, "best_prec1": 91.7}


def test_published_weights_are_loaded_whole():
    torch.manual_seed(0)
    source, network = build("resnet20"), build("resnet20")
    load_published(network, published(source))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), source.eval()(images))


def spoilt(change):
    state = published(build("resnet20"))
    change(state["state_dict"])
    return state


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda state: state.pop("module.linear.bias"), "96 of 97 tensors fit; missing: linear.bias"),
        (lambda state: state.update({"module.more": torch.zeros(1)}), "97 of 97 tensors fit; left over: more"),
        (
            lambda state: state.update({"module.linear.weight": torch.zeros(100, 64)}),
            "96 of 97 tensors fit; of another shape: linear.weight",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, line):
    with pytest.raises(ValueError, match=line):
        load_published(build("resnet20"), spoilt(change))


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    torch.save({"state_dict": Runs()}, tmp_path / "evil.th")
    with pytest.raises(ValueError) as error:
        weights.load_published(tmp_path / "evil.th", name="resnet20", channels=3)
    assert "\n" not in str(error.value) and not Path("ran").exists()


def test_all_are_classifiers_by_name():
    assert set(PARAMETERS) <= set(CLASSIFIERS)
