"""Run `python train.py stage=...`: compose and check the settings, then train. Torch is imported after the checks."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from s2snet.cli import messages, settings
from s2snet.cli.conf_dir import conf_dir

settings.register()


@hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")
def _train(config: DictConfig) -> float | None:
    """Train, and return the objective if a sweeper asks for one."""
    with messages.one_line():
        checked = settings.train_settings(config)
        messages.launcher_is_used()
        messages.single_device_in_sweeps(checked.trainer.devices * checked.trainer.num_nodes)
        from s2snet.training.from_config import train

        path = train(
            checked,
            OmegaConf.to_yaml(config, resolve=True),
            command=" ".join(["python train.py", *HydraConfig.get().overrides.task]),
        )
        if checked.objective is None:
            return None
        from s2snet.training.loggers import METRICS, kept_value

        return kept_value(path.parent / METRICS, checked.objective, checked.recipe.early_stopping)


def main() -> None:
    messages.run(_train)
