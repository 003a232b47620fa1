"""Trains one stage: python train.py stage=classifier | 1 | 2 | adversarial (s2snet/cli/train.py)."""

from s2snet.cli.train import main

if __name__ == "__main__":
    main()
