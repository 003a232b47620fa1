"""`plan=true`: the cells, the passes each takes per image and the minutes this machine would need; starts nothing."""

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from s2snet.evaluation import fitted, ranks
from s2snet.evaluation.costs import seconds_per_image
from s2snet.evaluation.engine import chunks
from s2snet.evaluation.run import Job, plan

MEASURED_ON = 32  # images; a pass over a whole chunk costs no more per image


def forecast(job: Job, console: Console | None = None) -> float:
    """Prints the plan and returns its minutes, an upper bound: images that leave early and chunks kept cost less.

    Times a few passes of each source; crafts and writes nothing.
    """
    console = console or Console(highlight=False)
    planned = plan(job)
    device = ranks._device(job.trainer.accelerator)
    for module in planned.copies.values():
        module.to(device)
    batch = torch.stack([job.images[place][0] for place in range(min(MEASURED_ON, job.count))]).to(device)
    speeds: dict[int, tuple[float, float]] = {}
    processes = job.trainer.devices * job.trainer.num_nodes
    table = Table(title=f"{job.count} images, {len(chunks(job.chunk, job.count))} chunks", box=SIMPLE)
    for column in ("cell", "forwards", "backwards", "minutes"):
        # where it is narrow the cells' names take two lines, and no figure is cut
        table.add_column(column, justify="left" if column == "cell" else "right", no_wrap=column != "cell")
    total = 0.0
    for cell in planned.cells:
        cost = planned.costs.of(cell)
        seconds = 0.0
        if cell.surrogate is not None:
            cell.surrogate.to(device)
        if cell.fast is not None:
            several = hasattr(cell.fast, "draws_per_backward")  # its passes are counted as the network's
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
    made = [
        (f"the {cell.preimage['fit']['surrogate']} surrogate of {cell.views[0][1]}", fitted.seconds_of_surrogate, cell)
        for cell in surrogates.values()
    ]
    made += [(cell.describe(), fitted.seconds_of_perturbation, cell) for cell in planned.cells if cell.universal]
    for what, measure, cell in made:
        try:
            seconds = measure(cell, job.train, device)
        except ValueError:  # what cannot be made fails in its cell, where it is said
            seconds = 0.0
        minutes += seconds / 60  # by the first process, while the others wait
        table.add_row(f"fit {what}", "", "", f"{seconds / 60:.2f}")
    console.print(table)
    where = f"{processes} processes" if processes > 1 else "one process"
    console.print(
        f"{len(planned.cells)} cells, at most about {minutes:.1f} minutes in {where}: images that leave early and "
        "chunks that the ledger holds cost less. Nothing was started."
    )
    return minutes
