"""Average the weights over the optimiser steps: what is validated, kept as the best, and saved."""

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


def moving_average(decay: float) -> WeightAveraging:
    """Return Lightning's callback for average = decay average + (1 - decay) weights, from the first step's weights on.

    BatchNorm's statistics are averaged too. Lightning's own `EMAWeightAveraging` (2.6.6) computes the formula as
    written, which rounds weights that do not change away from their values: a frozen encoder would no longer be the one
    of stage 1. `lerp` is exact if both are equal, and counters are copied. Costs one copy of the stage's networks.
    """

    def update(average: Tensor, weight: Tensor, steps: Tensor) -> Tensor:
        return torch.lerp(average, weight, 1 - decay) if average.is_floating_point() else weight

    return WeightAveraging(avg_fn=update)
