"""Run `python evaluate.py`: compose and check the settings, evaluate, write the report, print the table."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from s2snet.cli import messages, settings
from s2snet.cli.conf_dir import conf_dir

settings.register()


@hydra.main(config_path=str(conf_dir()), config_name="evaluate", version_base="1.3")
def _evaluate(composed: DictConfig) -> None:
    with messages.one_line():
        words = HydraConfig.get().overrides.task
        config = settings.evaluate_settings(composed)
        messages.launcher_is_used()
        messages.single_device_in_sweeps(config.trainer.devices * config.trainer.num_nodes)
        from rich.console import Console

        from s2snet.audit import checks
        from s2snet.audit.probes.measure import measure
        from s2snet.evaluation.forecast import forecast
        from s2snet.evaluation.job import job_of
        from s2snet.evaluation.run import run
        from s2snet.rank_zero import is_first
        from s2snet.report.audit_page import write_audit
        from s2snet.report.page import write_report
        from s2snet.report.terminal import summary

        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        say = console.print if is_first() else lambda *_: None
        command = " ".join(["python evaluate.py", *words])
        explicit = any(word.lstrip("+~").startswith("defence=") or word.startswith("+defence.") for word in words)
        job = job_of(config, OmegaConf.to_yaml(composed, resolve=True), command, explicit, say)
        if config.plan:
            forecast(job)
            return
        folder = run(job, say, probe=measure)
        if not is_first():
            return
        findings = checks.write(folder)
        page, audit = write_report(folder), write_audit(folder)
        summary(folder, remedies=config.strict or config.audit == "full")
        print(f"table:  {folder / 'table.csv'}\nreport: {page}" + (f"\naudit:  {audit}" if audit else ""))
        if config.strict and any(finding.verdict == checks.FAIL for finding in findings):
            raise ValueError("strict=true: the audit failed; the report names the failed checks and their remedies")


def main() -> None:
    messages.run(_evaluate)
