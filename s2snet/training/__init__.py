"""Train: one Lightning module per stage, and the loop that runs any of them."""

from s2snet.torchvision_cpu import patch

patch()  # before anything here imports Lightning or torchmetrics
