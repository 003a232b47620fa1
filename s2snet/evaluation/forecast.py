"""Print what an evaluation would cost (`plan=true`): its cells, their passes per image and minutes on this machine."""

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from s2snet.evaluation import fitted, ranks
from s2snet.evaluation.costs import seconds_per_image
from s2snet.evaluation.job import Job
from s2snet.evaluation.plan import plan

MEASURED_ON = 32  # images; a pass over a whole chunk costs no more per image


def forecast(job: Job, console: Console | None = None) -> float:
    """Print the plan and return its minutes, an upper bound: images that leave early and kept chunks cost less.

    Times a few passes of each source. Crafts and writes nothing.
    """
    console = console or Console(highlight=False)
    planned = plan(job)
    device = ranks.device_of(job.config.trainer.accelerator)
    for module in planned.copies.values():
        module.to(device)
    batch = torch.stack([job.images[place][0] for place in range(min(MEASURED_ON, job.count))]).to(device)
    speeds: dict[int, tuple[float, float]] = {}
    processes = job.config.trainer.devices * job.config.trainer.num_nodes
    table = Table(title=f"{job.count} images, {len(job.chunks)} chunks", box=SIMPLE)
    for column in ("cell", "forwards", "backwards", "minutes"):
        # in a narrow terminal the cells' names take two lines, and no number is cut
        table.add_column(column, justify="left" if column == "cell" else "right", no_wrap=column != "cell")
    total = 0.0
    for cell in planned.cells:
        cost = planned.costs.of(cell)
        seconds = 0.0
        if cell.surrogate is not None:
            cell.surrogate.to(device)
        if cell.fast is not None:
            several = hasattr(cell.fast, "draws_per_backward")  # its passes are counted as passes of the network
            network = cell.fast.defended if several else cell.fast
            if id(network) not in speeds:
                speeds[id(network)] = seconds_per_image(network, batch)
            forward, both = speeds[id(network)]
            alone = max(cost.forwards - cost.backwards, 0)
            seconds = job.count * (alone * forward + cost.backwards * both)
        total += seconds
        table.add_row(cell.describe(), f"{cost.forwards:.4g}", f"{cost.backwards:.4g}", f"{seconds / 60:.2f}")
    minutes = total / 60 / processes
    surrogates = {fitted.name_of(cell): cell for cell in planned.cells if cell.surrogate is not None}
    fits = [
        (f"the {cell.preimage['fit']['surrogate']} surrogate of {cell.views[0][1]}", fitted.seconds_of_surrogate, cell)
        for cell in surrogates.values()
    ]
    fits += [(cell.describe(), fitted.seconds_of_perturbation, cell) for cell in planned.cells if cell.universal]
    for name, measure, cell in fits:
        try:
            seconds = measure(cell, job.train, device)
        except ValueError:  # a failed fit is reported with its cell
            seconds = 0.0
        minutes += seconds / 60  # by the first process, while the others wait
        table.add_row(f"fit {name}", "", "", f"{seconds / 60:.2f}")
    console.print(table)
    processors = f"{processes} processes" if processes > 1 else "one process"
    console.print(
        f"{len(planned.cells)} cells, at most about {minutes:.1f} minutes in {processors}: images that leave early and "
        "chunks in the ledger cost less. Nothing was started."
    )
    return minutes
