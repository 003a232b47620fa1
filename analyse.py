"""Asks why a defence breaks or holds: python analyse.py study=gradients (s2snet/cli/analyse.py)."""

from s2snet.cli.analyse import main

if __name__ == "__main__":
    main()
