"""Choose the data set and the networks of a command. Their options depend on the choice, so they are dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from s2snet.config.option import option


@dataclass
class Choice:
    """A name in a registry and the options of what it names, as in conf/GROUP/NAME.yaml."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Return the choice that a flat mapping makes, such as {name: mlp, hidden: [128]}."""
        options = dict(config)
        return cls(options.pop("name", ""), options)

    @property
    def config(self) -> dict[str, Any]:
        """The name and the options in one mapping, as `models.build` keeps them at a module."""
        return {"name": self.name, **self.options}


@dataclass
class Data(Choice):
    """A data set of s2snet.data.DATA."""

    @property
    def channels(self) -> int:
        return self.options["channels"]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.options["size"]


@dataclass
class Classifier(Choice):
    """A classifier of s2snet.models.CLASSIFIERS and where its weights come from."""

    weights: str | None = None  # null: what stage=classifier trained; a state dict; an entry; random: untrained

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Return the choice that a flat mapping makes, such as {name: mlp, hidden: [128], weights: random}."""
        choice = super().of(config)
        choice.weights = choice.options.pop("weights", None)
        return choice


@dataclass
class Autoencoder(Choice):
    """An autoencoder of s2snet.models.AUTOENCODERS."""


@dataclass(kw_only=True)
class Networks:
    """The part that every command has: the data set, the networks, and the folders in which files are looked up."""

    data: Data
    classifier: Classifier
    autoencoder: Autoencoder
    data_root: str | None = option(None, help="folder of data that is not shipped")
    runs: str = option("runs", help="folder of trained weights, in one below it that follows from data and networks")

    def with_classes(self, count: int) -> Self:
        """Return a copy in which `classes=null` is the number of classes that the data have, if they have any."""

        def counted(choice: Any) -> Any:
            if "classes" not in choice.options or choice.options["classes"] is not None:
                return choice
            return replace(choice, options={**choice.options, "classes": count or None})

        return replace(self, data=counted(self.data), classifier=counted(self.classifier))
