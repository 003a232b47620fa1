"""Bad input in one clear line and exit code 1; the traceback only with debug=true."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s2snet.cli.conf_dir import conf_dir
from s2snet.config.choices import nearest

LISTS = {"attack", "defence", "study", "threat"}  # groups of which several choices are taken at once
EXTRAS = {"hydra/launcher": "slurm", "hydra/sweeper": "sweep"}  # where Hydra's plugins come from


class BadInput(ValueError):
    """What the user gave, what is allowed, the nearest match; its text is the line that is printed."""


def run(main: Callable[[], object]) -> None:
    """Calls a Hydra main; what the user can mend ends in one line on stderr and exit code 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing several lines
    # Threads that wait by spinning cost four times the work on a machine where anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with one_line():
        main()


@contextmanager
def one_line() -> Iterator[None]:
    """Ends the process with one line for an error of the user's; errors of ours pass through.

    Around the job too, not only around Hydra, which would print a line of its own before handing the error on.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader went away: | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = _line(error)
        if line is None or "debug=true" in sys.argv:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def _line(error: BaseException) -> str | None:
    """One line for an error of the user's, None for one of ours."""
    from hydra.errors import ConfigCompositionException, HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
        return _unknown_choice(error) or _unknown_key(cause) or _first_line(error, cause)
    # By name, since importing Lightning takes seconds: no such device, a strategy that is not installed.
    if isinstance(error, ValueError | OSError) or type(error).__name__ == "MisconfigurationException":
        return " ".join(str(error).split())
    if type(error) is RuntimeError and 'Could not detect "srun"' in str(error):  # submitit's, away from a cluster
        return "no SLURM here (srun is not found); start it on the cluster's login node, or leave experiment=slurm out"
    return None


def _unknown_choice(error: BaseException) -> str | None:
    found = re.search(r"Could not (?:find|load) '(.+)/(.+)'", str(error))
    if not found:
        return None
    group, choice = found[1], found[2]
    options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    if group in EXTRAS:
        return f"{group}={choice}: not installed here; pip install -e .[{EXTRAS[group]}]"
    if not options:
        return f"{group}={choice}: there is no {group} to choose"
    if group == "defence":
        options[-1] += f"; +defence.{choice}.purifier=PURIFIER, without {choice} in defence=[...], adds your own"
    return f"{group}={choice}{nearest(choice, options)}: allowed are {', '.join(options)}"


def _unknown_key(error: BaseException) -> str | None:
    key, node = getattr(error, "full_key", None), getattr(error, "parent_node", None)
    if not key or node is None or not re.search(r"not in|is not in struct", str(error)):
        return None
    allowed = sorted(str(k) for k in node)
    if not allowed:
        return f"unknown setting {key}: nothing stands there; +{key}=VALUE adds it"
    group, _, choice = key.partition(".")
    if group == "defence" and choice not in allowed and not (conf_dir() / group / f"{choice}.yaml").is_file():
        return f"unknown setting {key}{nearest(choice, allowed)}: +defence.{choice}.purifier=PURIFIER adds a defence"
    if (conf_dir() / group / f"{choice}.yaml").is_file():
        if group in LISTS:  # attack.pgd.steps=3 where attack=[fgsm]
            return f"{key} is not chosen: {group}=[{','.join([*map(str, node), choice])}] takes it as well"
        return f"unknown setting {key}: {group}={choice} chooses it"
    return f"unknown setting {key}{nearest(key.rpartition('.')[2], allowed)}: allowed here are {', '.join(allowed)}"


def _first_line(error: BaseException, cause: BaseException) -> str:
    lines = [line.strip() for line in (str(error) + "\n" + (str(cause) if cause is not error else "")).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("full_key", "object_type", "reference_type"))]
    return ": ".join(dict.fromkeys(kept))


def launcher_is_used() -> None:
    """BadInput for a launcher in a run that asks none: Hydra would run here and say nothing."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN and not hydra.launcher._target_.endswith("BasicLauncher"):
        raise BadInput(f"hydra/launcher={hydra.runtime.choices['hydra/launcher']} launches nothing without -m; add it")


def single_device_in_sweeps(devices: int) -> None:
    """BadInput for a -m run on several devices: a re-launched rank would run the whole sweep again.

    Not under SLURM, which has started every rank itself.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if devices > 1 and "SLURM_NTASKS" not in os.environ and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise BadInput(
            f"-m with {devices} devices would start the sweep once per device; write the loop in the shell instead: "
            "for stage in 1 2; do python train.py stage=$stage trainer=ddp_cpu; done"
        )
