"""List the packages: all folders of s2snet/, conf/ and the released weights. Everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["s2snet", "s2snet.*"]), "s2snet.conf", "s2snet.released"])
