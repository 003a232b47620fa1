"""`python evaluate.py`: composes and checks the settings, evaluates, writes the report, prints the table."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from s2snet.cli import messages, settings
from s2snet.cli.conf_dir import conf_dir

settings.register()


@hydra.main(config_path=str(conf_dir()), config_name="evaluate", version_base="1.3")
def _evaluate(config: DictConfig) -> None:
    with messages.one_line():
        words = HydraConfig.get().overrides.task
        checked = settings.evaluate_settings(config)
        messages.launcher_is_used()
        messages.single_device_in_sweeps(checked.trainer.devices * checked.trainer.num_nodes)
        from rich.console import Console

        from s2snet.audit import checks
        from s2snet.audit.probes.measure import measure
        from s2snet.evaluation.from_settings import evaluate
        from s2snet.rank_zero import is_first
        from s2snet.report.audit_page import write_audit
        from s2snet.report.page import write_report
        from s2snet.report.terminal import summary

        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        folder = evaluate(
            checked,
            OmegaConf.to_yaml(config, resolve=True),
            command=" ".join(["python evaluate.py", *words]),
            explicit=any(word.lstrip("+~").startswith("defence=") for word in words),
            say=console.print if is_first() else lambda *_: None,
            probe=measure,
        )
        if folder is None or not is_first():
            return
        findings = checks.write(folder)
        page, audit = write_report(folder), write_audit(folder)
        summary(folder, remedies=checked.strict or checked.audit == "full")
        print(f"table:  {folder / 'table.csv'}\nreport: {page}" + (f"\naudit:  {audit}" if audit else ""))
        if checked.strict and any(finding.verdict == checks.FAIL for finding in findings):
            raise ValueError("strict=true and the audit failed; the report says what, and what to do")


def main() -> None:
    messages.run(_evaluate)
