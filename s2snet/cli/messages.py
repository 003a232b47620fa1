"""Turn bad input into one line and exit code 1; the traceback is shown only with debug=true."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s2snet.cli.conf_dir import conf_dir
from s2snet.config.choices import nearest

LISTS = {"attack", "defence", "study", "threat"}  # groups with several choices at once
EXTRAS = {"hydra/launcher": "slurm", "hydra/sweeper": "sweep"}  # the extras that install Hydra's plugins


class BadInput(ValueError):
    """An error of the user's. Its text is the printed line: what was given, what is allowed, the nearest match."""


def run(main: Callable[[], object]) -> None:
    """Call a Hydra main; an error that the user can fix ends in one line on stderr and exit code 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing several lines
    # Threads that spin while they wait cost four times the work if anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with one_line():
        main()


@contextmanager
def one_line() -> Iterator[None]:
    """Exit with one line for an error of the user's; let defects of ours pass through.

    Needed around the job too and not only around Hydra, which prints a line of its own before it raises the error.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reading end was closed, as by | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = line_of(error)
        if line is None or "debug=true" in sys.argv:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def line_of(error: BaseException) -> str | None:
    """Return the line to print for an error of the user's, None for a defect of ours."""
    from hydra.errors import ConfigCompositionException, HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
        return _unknown_choice(error) or _unknown_key(cause) or _first_line(error, cause)
    # Lightning's, for an unknown device or strategy. Compared by name, since importing Lightning takes seconds.
    if isinstance(error, ValueError | OSError) or type(error).__name__ == "MisconfigurationException":
        return " ".join(str(error).split())
    if type(error) is RuntimeError and 'Could not detect "srun"' in str(error):  # submitit's, if there is no cluster
        return "SLURM not found (no srun); run this on the cluster's login node, or without experiment=slurm"
    return None


def _unknown_choice(error: BaseException) -> str | None:
    missing = re.search(r"Could not (?:find|load) '(.+)/(.+)'", str(error))
    if not missing:
        return None
    group, choice = missing.groups()
    options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    if group in EXTRAS:
        return f"{group}={choice}: not installed; pip install -e .[{EXTRAS[group]}]"
    if not options:
        return f"{group}={choice}: no such group"
    if group == "defence":
        options[-1] += f"; +defence.{choice}.purifier=PURIFIER, without {choice} in defence=[...], adds your own"
    return f"{group}={choice}{nearest(choice, options)}: allowed are {', '.join(options)}"


def _unknown_key(error: BaseException) -> str | None:
    key, node = getattr(error, "full_key", None), getattr(error, "parent_node", None)
    if not key or node is None or not re.search(r"not in|is not in struct", str(error)):
        return None
    allowed = sorted(str(k) for k in node)
    if not allowed:
        return f"unknown setting {key}: {key.rpartition('.')[0]} is empty; +{key}=VALUE adds to it"
    group, _, choice = key.partition(".")
    if group == "defence" and choice not in allowed and not (conf_dir() / group / f"{choice}.yaml").is_file():
        return f"unknown setting {key}{nearest(choice, allowed)}: +defence.{choice}.purifier=PURIFIER adds a defence"
    if (conf_dir() / group / f"{choice}.yaml").is_file():
        if group in LISTS:  # attack.pgd.steps=3 where attack=[fgsm]
            return f"{key} is not selected: use {group}=[{','.join([*map(str, node), choice])}]"
        return f"unknown setting {key}: use {group}={choice} to select it"
    return f"unknown setting {key}{nearest(key.rpartition('.')[2], allowed)}: allowed here are {', '.join(allowed)}"


def _first_line(error: BaseException, cause: BaseException) -> str:
    lines = [line.strip() for line in (str(error) + "\n" + (str(cause) if cause is not error else "")).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("full_key", "object_type", "reference_type"))]
    return ": ".join(dict.fromkeys(kept))


def launcher_is_used() -> None:
    """BadInput for a launcher without -m: Hydra would ignore it and run the job here."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN and not hydra.launcher._target_.endswith("BasicLauncher"):
        raise BadInput(f"hydra/launcher={hydra.runtime.choices['hydra/launcher']} has no effect without -m; add -m")


def single_device_in_sweeps(devices: int) -> None:
    """BadInput for a -m run on several devices, where every launched rank would run the whole sweep again.

    Allowed under SLURM, which starts every rank itself.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if devices > 1 and "SLURM_NTASKS" not in os.environ and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise BadInput(
            f"-m with {devices} devices would run the whole sweep once per device; use a shell loop instead: "
            "for stage in 1 2; do python train.py stage=$stage trainer=ddp_cpu; done"
        )
