"""Turn names into modules: classifiers, defences and weights files, on disk, on a hub, or shipped with the package."""
