"""The audit on the gallery: each broken defence is caught by its check, and sound ones raise no alarm."""

import functools

import gallery
import pytest

from s2snet.attacks import ATTACKS
from s2snet.audit.checks import findings
from s2snet.audit.checks.finding import FAIL, WARN
from s2snet.evaluation.scores import read_table

ENTRIES = gallery.BROKEN | gallery.SOUND


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return {entry: its result folder}."""
    with pytest.MonkeyPatch.context() as patch:
        for name, attack in gallery.IDLE.items():
            patch.setitem(ATTACKS, name, attack)
        return gallery.evaluated(ENTRIES, tmp_path_factory.mktemp("gallery"), gallery.Small())


@functools.cache
def all_findings(folder) -> list:
    return findings(folder)


def by_check(results, name: str) -> dict[str, list]:
    """Return {check: its findings on an entry}."""
    of_entry: dict[str, list] = {}
    for finding in all_findings(results[name]):
        if finding.defence in (name, ""):
            of_entry.setdefault(finding.check, []).append(finding)
    return of_entry


@pytest.mark.parametrize("name", gallery.BROKEN)
def test_a_broken_defence_is_caught_by_its_check(results, name):
    entry = gallery.BROKEN[name]
    (finding,) = by_check(results, name)[entry.caught_by]
    assert finding.verdict == entry.verdict, finding
    assert entry.part in (finding.part, ""), finding
    verdict = next(line["audit"] for line in read_table(results[name] / "table.csv") if line["defence"] == name)
    assert verdict.startswith(entry.verdict.upper())


@pytest.mark.parametrize("name", gallery.SOUND)
def test_a_sound_defence_is_left_alone(results, name):
    """Except `denominators`, because the gallery has few images."""
    found = [finding for of_check in by_check(results, name).values() for finding in of_check]
    alarms = [finding for finding in found if finding.verdict in (WARN, FAIL)]
    assert [finding for finding in alarms if finding.check != "denominators"] == []


def test_on_normalised_pixels_nothing_counts_as_robust(results):
    lines = read_table(results["normalised pixels"] / "table.csv")
    attacked = [line for line in lines if line["threat"] != "clean"]
    assert attacked and all(line["accuracy"] is None or line["status"] != "done" for line in attacked)


@pytest.mark.parametrize("name", ["detached purifier", "8 bits", "3 bits", "jpeg 75", "lying backward", "look-up"])
def test_the_part_that_lies_is_named(results, name):
    named = {
        f.part for check in ("zero_gradients", "finite_differences", "jumps") for f in by_check(results, name)[check]
    }
    assert "purifier" in named and "classifier" not in named
