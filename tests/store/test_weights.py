"""Weights files: modules are restored bit for bit, nothing is executed, and bad files are one line."""

import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import forked, run_python

import s2snet
from s2snet.models import Defended, build
from s2snet.store import weights

OPTIONS = {"segnet_small": {"widths": [4, 8], "convs": [1, 2]}, "small_cnn": {"widths": [4, 8]}}


def module_of(name: str = "small_cnn", seed: int = 0):
    torch.manual_seed(seed)
    return build(name, **OPTIONS[name])


def content(path) -> tuple[dict, dict]:
    """The header and the tensors of a weights file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["s2snet"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def rewrite(path, change) -> None:
    """The file again, after `change(header, tensors)`."""
    header, tensors = content(path)
    change(header, tensors)
    save_file(tensors, path, metadata={"s2snet": json.dumps(header)})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights.save(module_of(), path, kind="classifier", metrics={"accuracy": 0.5})
    return path


@pytest.mark.parametrize("name", OPTIONS)
def test_round_trip_is_bit_equal(name, tmp_path):
    module = module_of(name)
    module(torch.rand(8, 1, 16, 16))  # running statistics that are not the initial ones
    header = weights.save(module, tmp_path / "a" / "w.safetensors", kind="classifier", seed=0)
    loaded = s2snet.load(tmp_path / "a" / "w.safetensors")
    assert not loaded.training
    assert loaded.config == module.config
    assert loaded.header == header == weights.read_header(tmp_path / "a" / "w.safetensors")
    assert {"format", "module", "fingerprint", "kind", "seed", "versions"} <= header.keys()
    assert weights.fingerprint(loaded) == header["fingerprint"]
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for key, tensor in module.state_dict().items():
        assert loaded.state_dict()[key].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_loads_in_another_process(saved):
    images = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    with torch.no_grad():
        expected = weights.load(saved)(images)
    program = (
        "import sys, torch, s2snet; torch.set_num_threads(1)\n"
        "images = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)\n"
        "with torch.no_grad(): print(s2snet.load(sys.argv[1])(images).tolist())"
    )
    answer = run_python("-c", program, str(saved))
    assert answer.returncode == 0, answer.stderr
    torch.testing.assert_close(torch.tensor(json.loads(answer.stdout)), expected, rtol=1e-5, atol=1e-6)


def test_two_saves_are_byte_identical(tmp_path):
    for name in ("a", "b"):
        weights.save(module_of(), tmp_path / name, kind="classifier", data={"z": 1, "a": 2}, metrics={"x": 0.1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing half-written stays


def test_fingerprint_is_of_the_module_alone(saved, tmp_path):
    module = weights.load(saved)
    fingerprint = weights.fingerprint(module)
    elsewhere = tmp_path / "elsewhere.safetensors"
    weights.save(module, elsewhere)
    assert weights.fingerprint(weights.load(elsewhere)) == fingerprint
    assert weights.fingerprint(module.train()) == fingerprint
    assert weights.fingerprint(module.requires_grad_(False)) == fingerprint
    assert weights.fingerprint(module.to(memory_format=torch.channels_last)) == fingerprint
    assert weights.fingerprint(module_of()) == fingerprint


@pytest.mark.parametrize("key", ["features.0.weight", "features.1.running_mean", "normalisation.std"])
def test_one_number_changes_the_fingerprint(key):
    module, other = module_of(), module_of()
    tensor = other.state_dict()[key].view(-1)
    tensor[0] = torch.nextafter(tensor[0], torch.tensor(9.0))
    assert weights.fingerprint(module) != weights.fingerprint(other)


def test_architecture_is_in_the_fingerprint():
    """Dropout has no tensors, so only the config distinguishes these two; so do the parts of a defended module."""
    assert len({weights.fingerprint(build("small_cnn", dropout=share).eval()) for share in (0.0, 0.5)}) == 2
    purifier, classifier = module_of("segnet_small"), module_of()
    parts = [classifier, Defended(None, classifier), Defended(purifier, classifier)]
    assert len({weights.fingerprint(part) for part in parts}) == 3


def test_header_executes_nothing(saved, monkeypatch):
    called = []
    monkeypatch.setattr("os.system", lambda *words: called.append(words))
    rewrite(saved, lambda header, _: header.update(module={"name": "os.system", "command": "true"}))
    with pytest.raises(ValueError, match=r"unknown module 'os.system'; allowed are "):
        weights.load(saved)
    rewrite(saved, lambda header, _: header.update(module={"name": "builtins.eval", "source": "1/0"}))
    with pytest.raises(ValueError, match=r"unknown module 'builtins.eval'"):
        weights.load(saved)
    assert not called


def tamper(header, tensors):
    tensors["head.1.bias"][3] += 1e-3


def reshape(header, tensors):
    header["module"]["widths"] = [4, 9]


def lose(header, tensors):
    del tensors["head.1.bias"]


def add(header, tensors):
    tensors["head.2.bias"] = torch.zeros(2)


def halve(header, tensors):
    for key, tensor in tensors.items():
        tensors[key] = tensor.half() if tensor.is_floating_point() else tensor


CHANGED = {
    "tampered tensor": (tamper, "its tensors do not match its header (the fingerprint differs)"),
    "another type": (halve, "its tensors do not match its header (the fingerprint differs)"),
    "other architecture": (reshape, "its tensors do not fit small_cnn: 7 of another shape (features.4.bias, "),
    "missing tensor": (lose, "its tensors do not fit small_cnn: 1 missing (head.1.bias)"),
    "tensor left over": (add, "its tensors do not fit small_cnn: 1 left over (head.2.bias)"),
    "unknown module": (lambda header, _: header["module"].update(name="smallcnn"), "(did you mean 'small_cnn'?)"),
    "unknown option": (lambda header, _: header["module"].update(depth=3), "small_cnn has no option 'depth'"),
    "no module": (lambda header, _: header.update(module=3), ""),
    "impossible width": (lambda header, _: header["module"].update(widths=[-4, 8]), ""),
    "option of another type": (lambda header, _: header["module"].update(convs="1"), ""),
    "future format": (lambda header, _: header.update(format=2), "weights format 2; this version reads 1"),
    "no fingerprint": (lambda header, _: header.pop("fingerprint"), "not one that s2snet wrote (no header)"),
}


@pytest.mark.parametrize("change, line", CHANGED.values(), ids=CHANGED)
def test_changed_files_are_refused_in_one_line(change, line, saved):
    weights.load(saved)
    rewrite(saved, change)
    with pytest.raises(ValueError) as error:
        weights.load(saved)
    message = str(error.value)
    assert message.startswith(f"{saved}: ")
    assert line in message
    assert "\n" not in message


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def beheaded(path):
    path.write_bytes(path.read_bytes()[:20])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("these are no weights " * 9)


def pickled(path):
    torch.save({"model_state": {"a": torch.zeros(3)}}, path)


def foreign(path):
    save_file({"a": torch.zeros(3)}, path)


def nonsense_header(path):
    save_file({"a": torch.zeros(3)}, path, metadata={"s2snet": "{nope"})


def deep_header(path):
    save_file({"a": torch.zeros(3)}, path, metadata={"s2snet": "[" * 100_000})


REFUSED = [truncated, beheaded, emptied, text, pickled, foreign, nonsense_header, deep_header]


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_files_that_are_no_weights_are_refused_in_one_line(spoil, saved):
    spoil(saved)
    reason = "not one that s2snet wrote" if spoil is foreign else "truncated or not a .safetensors file"
    for read in (weights.load, weights.read_header):
        with pytest.raises(ValueError) as error:
            read(saved)
        assert str(error.value).startswith(f"{saved}: ")
        assert reason in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_file_and_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ValueError, match="no such weights file"):
            weights.load(path)


def test_a_save_that_fails_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        weights.save(module_of(seed=1), saved)
    assert saved.read_bytes() == before


def test_a_disk_without_room_is_one_line_and_leaves_the_old_file(saved):
    """The limit on a file's size makes the system itself refuse the write."""
    before = saved.read_bytes()

    def save():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError) as error:
            weights.save(module_of(seed=1), saved)
        assert str(saved) in str(error.value)
        assert "\n" not in str(error.value)

    assert forked(save) == 0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before
