"""The package: every folder is installed, the wheel works from anywhere, the rooms' arrows hold."""

import importlib.util
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages
from tiny import ROOT, run_python

import s2snet.training  # noqa: F401 - imports Lightning now, and not while a test hides what it needs
from s2snet import doctor


def tracked(folder: Path, *endings: str) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix in endings and "__pycache__" not in path.parts}


def test_setup_lists_every_package(monkeypatch):
    monkeypatch.chdir(ROOT)
    options = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: options.update(given))
    runpy.run_path("setup.py")
    listed = set(options["packages"])
    found = {"s2snet", *(f"s2snet.{name}" for name in find_packages(str(ROOT / "s2snet")))}
    assert listed == found | {"s2snet.conf", "s2snet.released"}
    assert {path.parent for path in (ROOT / "s2snet").rglob("*.py")} == {
        ROOT / name.replace(".", "/") for name in found
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, made from a copy so that the checkout stays clean."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package `build` is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("s2snet", "conf", "checkpoints"):
        shutil.copytree(ROOT / name, copy / name, ignore=leave)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)],
        cwd=copy, check=True, capture_output=True,
    )  # fmt: skip
    (made,) = folder.glob("*.whl")
    return made


def test_wheel_holds_code_configuration_page_and_weights(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in tracked(ROOT / "s2snet", ".py", ".j2", ".css", ".js")}
    conf = {f"s2snet/conf/{path.relative_to(ROOT / 'conf')}" for path in tracked(ROOT / "conf", ".yaml")}
    released = ROOT / "checkpoints" / "released"
    files = {f"s2snet/released/{path.relative_to(released)}" for path in tracked(released, ".safetensors")}
    assert code | conf | files <= held
    assert len(files) >= 4  # classifier, autoencoder, s2snet, adversarial
    assert not [name for name in held if name.startswith(("tests", "conf/", "checkpoints"))]


def test_wheel_works_from_anywhere(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "--target", tmp_path / "there", wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    there = str(tmp_path / "there")
    for script in ("train", "evaluate", "analyse"):
        program = f"from s2snet.cli.{script} import main; main()"
        done = run_python("-c", program, "--cfg", "job", folder="/", PYTHONPATH=there)
        assert done.returncode == 0, done.stderr
        assert "name: segnet_small" in done.stdout
    program = (
        "import s2snet; from s2snet.store import paths; from s2snet.cli.conf_dir import conf_dir\n"
        "print(s2snet.__file__, conf_dir(), paths.released(), len(list(paths.released().rglob('*.safetensors'))))"
    )
    done = run_python("-c", program, folder="/", PYTHONPATH=there)
    assert done.returncode == 0, done.stderr
    *places, count = done.stdout.split()
    assert all(place.startswith(there) for place in places), places
    assert int(count) >= 4


def test_arrows_between_rooms_go_one_way(tmp_path):
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.is_file():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [lint, "--config", ROOT / "setup.cfg", "--cache-dir", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_importing_the_package_imports_no_torch():
    done = run_python("-c", "import sys, s2snet; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_doctor_finds_this_installation_sound(capsys):
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("broken")]
    assert any(line.startswith("ok") and "torch " in line for line in lines)


def broken(capsys) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken")]


def test_doctor_names_a_pair_that_does_not_fit(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["numpy", "torch==1.2.3"])
    (line,) = broken(capsys)
    assert f"needs torch 1.2.3, got {torch.__version__}: pip install -c constraints.txt torch torchvision" in line


def test_doctor_names_a_missing_torchvision(monkeypatch, capsys):
    real = doctor.importlib.metadata.version

    def version(name):
        if name == "torchvision":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    (line,) = broken(capsys)
    assert line.endswith("torchvision is not installed: pip install -c constraints.txt torch torchvision")


def test_doctor_names_what_does_not_import(monkeypatch, capsys):
    real = doctor.importlib.import_module

    def import_module(name):
        if name == "torchmetrics":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    (line,) = broken(capsys)
    assert "torchmetrics cannot be imported (operator torchvision::nms does not exist and more): pip install" in line


def test_doctor_names_a_folder_that_cannot_be_written(monkeypatch, capsys):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (line,) = broken(capsys)
    assert "the working folder is not writable (Permission denied): set runs=FOLDER and output=FOLDER" in line
