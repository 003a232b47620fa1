"""Run `python analyse.py`: compose and check the settings, run the studies, write their pages, print their claims."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from s2snet.cli import messages, settings
from s2snet.cli.conf_dir import conf_dir

settings.register()


@hydra.main(config_path=str(conf_dir()), config_name="analyse", version_base="1.3")
def _analyse(config: DictConfig) -> None:
    with messages.one_line():
        words = HydraConfig.get().overrides.task
        checked = settings.analyse_settings(config)
        messages.launcher_is_used()
        from rich.console import Console

        from s2snet.analysis.from_settings import analyse
        from s2snet.report.studies.page import write_analysis
        from s2snet.report.terminal import claims

        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        folder = analyse(
            checked,
            OmegaConf.to_yaml(config, resolve=True),
            command=" ".join(["python analyse.py", *words]),
            explicit=any(word.lstrip("+~").startswith("defence=") for word in words),
            say=console.print,
        )
        pages = write_analysis(folder)
        claims(folder, list(checked.study))
        print("\n".join(f"{name + ':':<10} {path}" for name, path in pages.items()))


def main() -> None:
    messages.run(_analyse)
