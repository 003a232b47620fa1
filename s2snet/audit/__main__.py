"""`python -m s2snet.audit`."""

from s2snet.cli.audit import main

if __name__ == "__main__":
    main()
