"""Attacks the defences that were trained and writes table and report: python evaluate.py (s2snet/cli/evaluate.py)."""

from s2snet.cli.evaluate import main

if __name__ == "__main__":
    main()
