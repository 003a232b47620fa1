"""Mixed precision, compiling, SyncBatchNorm: what they do to a run, what they leave out of its files."""

import functools
from types import SimpleNamespace

import pytest
import torch
from tiny import train
from torch.nn import functional

from s2snet import data, models
from s2snet.config.recipe import Recipe
from s2snet.store import weights
from s2snet.training import loop
from s2snet.training.devices import synchronise_batch_norm

FEW = [
    f"recipes.{name}.{key}" for name in ("stage1", "stage2", "adversarial") for key in ("epochs=1", "batch_size=256")
]


@pytest.mark.parametrize("stage", ["1", "2"])
def test_bf16_trains_and_is_judged_in_float32(stage, trained, tmp_path):
    words = [f"stage={stage}", f"runs={trained}", *FEW]
    module = weights.load(train(*words, "trainer.precision=bf16-mixed", f"output={tmp_path / 'half'}"))
    full = weights.load(train(*words, f"output={tmp_path / 'full'}"))
    learned = [key for key, tensor in full.state_dict().items() if key.startswith("decoder.") and tensor.numel() > 1]
    one, other = ({key: part.state_dict()[key] for key in learned} for part in (module, full))
    assert all(tensor.dtype == torch.float32 for tensor in module.state_dict().values() if tensor.numel() > 1)
    assert any(not torch.equal(one[key], other[key]) for key in learned)  # it was another arithmetic
    torch.testing.assert_close(one, other, rtol=0.2, atol=0.05)  # of the same training

    images, labels = (getattr(data.load("digits", size=16).test, name) for name in ("images", "labels"))
    with torch.no_grad():
        if stage == "1":
            loss = functional.mse_loss(module(images), images)
        else:
            classifier = weights.load(trained / "digits/classifier-small_cnn/weights.safetensors")
            loss = functional.cross_entropy(models.Defended(module, classifier)(images), labels)
    assert module.header["metrics"]["loss"] == pytest.approx(loss.item(), abs=2e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own look at what it compiles
@pytest.mark.parametrize("stage", ["1", "2", "adversarial"])
def test_compiled_training_leaves_plain_files(stage, trained, tmp_path, monkeypatch):
    """By a backend that counts its calls and computes as eager does, so that the weights are the same."""
    calls = []

    def counting(graph, examples):
        return lambda *inputs: calls.append(graph) or graph.forward(*inputs)

    def judged(*given):
        before = len(calls)
        found = test(*given)
        assert len(calls) == before  # the header's metrics are the plain network's
        return found

    test = loop._test
    monkeypatch.setattr(loop, "_test", judged)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    words = [f"stage={stage}", f"runs={trained}", *FEW]
    plain = train(*words, f"output={tmp_path / 'plain'}")
    assert not calls
    compiled = train(*words, f"output={tmp_path / 'compiled'}", "trainer.compile=true")
    # Five steps; in stage 2 of encoder, decoder and classifier, in the adversarial one three passes each.
    assert len(calls) >= {"1": 5, "2": 15, "adversarial": 15}[stage]
    one, other = weights.load(plain).state_dict(), weights.load(compiled).state_dict()
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    states = [torch.load(path.parent / "checkpoints/last.ckpt", weights_only=True) for path in (plain, compiled)]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    going_on = [word.replace("epochs=1", "epochs=2") for word in words]
    train(*going_on, f"output={tmp_path / 'compiled'}", "ckpt_path=last")  # without compiling


def asked(accelerator="gpu", devices=8, nodes=1, sync="auto", precision="32-true", batch_size=8, batch_norm="train"):
    trainer = SimpleNamespace(
        accelerator=accelerator, devices=devices, num_nodes=nodes, sync_batchnorm=sync, precision=precision
    )
    return synchronise_batch_norm(trainer, Recipe(batch_size=batch_size, batch_norm=batch_norm))


def test_batch_norm_is_synchronised_over_gpus_with_small_batches():
    assert asked() and asked(devices=1, nodes=2) and asked(batch_size=15)
    assert not asked(batch_size=16)
    assert not asked(devices=1)
    assert not asked(accelerator="cpu")
    assert not asked(batch_norm="eval")
    assert asked(batch_size=64, sync="true")
    assert not asked(sync="false")


def test_what_a_cpu_cannot_do_is_one_line():
    with pytest.raises(ValueError, match=r"trainer.sync_batchnorm=true: needs GPUs; on the CPU use auto or false"):
        asked(accelerator="cpu", sync="true")
    with pytest.raises(ValueError, match=r"trainer.precision=16-mixed: needs a GPU; on the CPU use bf16-mixed"):
        asked(accelerator="cpu", precision="16-mixed")
    assert not asked(accelerator="cpu", precision="bf16-mixed")
