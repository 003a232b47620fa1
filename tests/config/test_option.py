"""Settings declared by `option`: defaults, bounds, choices, types and help texts, checked by `check`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from s2snet.config.analysis import AnalyseCommand
from s2snet.config.evaluation import Evaluation, Threat
from s2snet.config.option import check, option
from s2snet.config.pixels import linf, pixels
from s2snet.config.recipe import Recipes
from s2snet.config.training import TrainCommand


@dataclass
class Inner:
    rate: float | None = option(None, above=0, below=1, help="a share")
    kind: str = option("one", choices=("one", "two"), help="a word")


@dataclass
class Outer:
    count: int = option(3, at_least=1, help="a number")
    radius: Any = option("8/255", parse=linf, help="a length")
    names: list[str] = option(["a"], help="words")
    inner: Inner = option(Inner, help="nested")
    inners: dict[str, Inner] = option({}, help="nested, by label")

    def check_together(self, name: str) -> None:
        if self.count == 13:
            raise ValueError(f"{name}: unlucky")


def test_defaults_are_valid_and_not_shared():
    one, other = Outer(), Outer()
    one.names.append("b")
    assert other.names == ["a"] and check(other).radius == 8 / 255
    assert other.radius == "8/255"  # check returns a copy


@pytest.mark.parametrize(
    "given, line",
    [
        ({"count": 0}, "x.count=0: must be at least 1"),
        ({"count": 1.5}, "x.count=1.5: expected int, got float"),
        ({"count": True}, "x.count=True: expected int, got bool"),
        ({"count": "3"}, "x.count='3': expected int, got str"),
        ({"count": 13}, "x: unlucky"),
        ({"names": "a"}, "x.names='a': expected list, got str"),
        ({"radius": 8}, "x.radius=8: radii are in [0, 1] pixel units (did you mean 8/255?)"),
        ({"inner": Inner(rate=1.0)}, "x.inner.rate=1.0: must be above 0 and below 1"),
        ({"inner": Inner(rate=float("nan"))}, "x.inner.rate=nan: must be above 0 and below 1"),
        ({"inner": Inner(rate="much")}, "x.inner.rate='much': expected float or null, got str"),
        ({"inner": Inner(kind="on")}, "x.inner.kind=on (did you mean 'one'?): allowed are one, two"),
        ({"inners": {"a": Inner(), "b": Inner(kind="")}}, "x.inners.b.kind=: allowed are one, two"),
    ],
)
def test_a_bad_value_is_one_line_with_its_name(given, line):
    with pytest.raises(ValueError) as error:
        check(Outer(**given), "x")
    assert str(error.value) == line


def test_an_integer_is_a_number_and_none_is_allowed_if_declared():
    assert check(Inner(rate=None)).rate is None
    assert check(Outer(inners={"a": Inner(rate=0.5)})).inners["a"].rate == 0.5
    assert check(Recipes()).stage1.lr == 4e-3


@pytest.mark.parametrize("text, value", [("8/255", 8 / 255), (0.5, 0.5), ("2", 2.0), (0, 0.0)])
def test_lengths_are_fractions_or_numbers(text, value):
    assert pixels("x", text) == value


@pytest.mark.parametrize("text", ["8/0", "eight", "-1", "nan", "inf", None])
def test_what_is_no_length_is_one_line(text):
    with pytest.raises(ValueError, match=f"^x={text}: "):
        pixels("x", text)


@pytest.mark.parametrize(
    "kind", [TrainCommand, Evaluation, AnalyseCommand, Threat, *map(type, vars(Recipes()).values())]
)
def test_every_setting_has_a_help_text(kind):
    for item in dataclasses.fields(kind):
        assert item.metadata.get("help") or item.name in ("data", "classifier", "autoencoder"), item.name
