"""Test the report: its text follows from the table, it runs and fetches nothing foreign, and the page works."""

import json
import re
import subprocess
import sys

import pytest
from browser import CHROMIUM, Page
from matplotlib.figure import Figure
from reading import EVIL, Reader
from result_folder import make
from safetensors.numpy import load_file

from s2snet.evaluation.schema import CLEAN, WORST_CASE
from s2snet.evaluation.scores import headline, read_table
from s2snet.report import write_report
from s2snet.report.explorer import fewer
from s2snet.report.figures import curves
from s2snet.report.formatting import budget_text, percent, title_of
from s2snet.report.verdict import BROKEN, HOLDS, NO_GAIN, UNKNOWN, sentences, state, summary

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A result folder with its report, for tests that only read."""
    folder = make(tmp_path_factory.mktemp("results") / "digits")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def line(accuracy: float | None, low: float = 0.0, high: float = 1.0, status: str = "done") -> dict:
    """Return a line of the table with the columns that a verdict uses."""
    return {"accuracy": accuracy, "low": low, "high": high, "status": status}


SMALL = {"images": 30, "kept": 2, "attacks": {"pgd": 1.0}}  # of make: enough where the number of cells does not matter


# ------------------------------------------------------------------ formatting


@pytest.mark.parametrize(
    ("budget", "norm", "text"),
    [
        (8 / 255, "linf", "8/255"),
        (25.5 / 255, "linf", "25.5/255"),
        (0.3, "linf", "0.3"),
        (0.033, "linf", "0.033"),
        (1.0, "linf", "255/255"),
        (0.5, "l2", "0.5"),
        (8 / 255, "l2", "0.03137"),
        (0.0, "", ""),
    ],
)
def test_budgets_are_written_in_255ths_if_that_is_exact(budget, norm, text):
    assert budget_text(budget, norm) == text


def test_only_exact_shares_are_written_as_0_or_100():
    assert [percent(share, unit=False) for share in (1.0, 0.9999, 0.3141, 0.0001, 0.0)] == [
        "100.0",
        ">99.9",
        "31.4",
        "<0.1",
        "0.0",
    ]


def test_unknown_names_have_a_title():
    assert title_of("brand_new_attack") == "brand new attack"


# ------------------------------------------------------------------ verdict


def test_a_broken_defence_is_called_broken():
    at = ("linf", 8 / 255)
    headlines = {
        ("none", CLEAN, "", 0.0): line(0.99),
        ("good", CLEAN, "", 0.0): line(0.95),
        ("none", WORST_CASE, *at): line(0.2, 0.15, 0.25),
        ("good", WORST_CASE, *at): line(0.6),
        ("same", WORST_CASE, *at): line(0.24),
        ("gone", WORST_CASE, *at): line(0.08),
        ("lost", WORST_CASE, *at): line(None, status="failed: x"),
    }
    names = ("good", "same", "gone", "lost")
    assert [state(headlines, name, *at, 100) for name in names] == [HOLDS, NO_GAIN, BROKEN, UNKNOWN]
    assert state(headlines, "good", *at, 2) == HOLDS
    assert state({**headlines, ("good", WORST_CASE, *at): line(0.5)}, "good", *at, 2) == BROKEN  # a coin does it
    assert summary(headlines, "gone", 100) == [(BROKEN, "Broken at every budget.")]
    assert summary(headlines, "good", 100)[0][1].endswith("at every budget.")
    headlines["good", WORST_CASE, *at]["status"] = "incomplete: x"
    assert summary(headlines, "good", 100)[0][1].endswith("as far as it was measured.")


def test_the_sentence_follows_from_the_numbers():
    at = ("linf", 8 / 255)
    defences = [
        {"name": "none", "title": "Bare"},
        {"name": "s2snet", "title": "S2SNet", "has_purifier": True},
        {"name": "other", "title": "Other"},
    ]
    headlines = {
        ("s2snet", "gray_box", *at): line(0.978),
        ("s2snet", "white_box", *at): line(0.314),
        ("s2snet", WORST_CASE, *at): line(0.314),
        ("other", WORST_CASE, *at): line(0.5, status="incomplete: x"),
        ("none", WORST_CASE, *at): line(0.0),
    }
    assert sentences(headlines, defences) == [
        "At L∞\u00a08/255, S2SNet keeps 97.8\u00a0% when the attacker does not know it "
        "and 31.4\u00a0% when the attacker does.",
        "Best in its worst case: Other, at most 50.0\u00a0%.",
    ]
    headlines["s2snet", WORST_CASE, *at] = line(0.3)
    assert "and 30.0\u00a0% in the worst case." in sentences(headlines, defences)[0]
    assert "Nothing was attacked" in sentences({("none", CLEAN, "", 0.0): line(1.0)}, defences)[0]


# ------------------------------------------------------------------ figures


def test_curves_draw_the_tables_numbers(folder):
    headlines = headline(read_table(folder / "table.csv"))
    axes = Figure().add_subplot()
    curves.draw(headlines, axes, "linf", WORST_CASE, {"none": "Bare $x", "s2snet": "S2SNet"}, {"none": 0, "s2snet": 1})
    for drawn, name in zip(axes.lines, ("none", "s2snet"), strict=True):
        for budget, accuracy in zip(*drawn.get_data(), strict=True):
            key = (name, WORST_CASE, "linf", budget) if budget else (name, CLEAN, "", 0.0)
            assert accuracy == pytest.approx(100 * headlines[key]["accuracy"])
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["Bare $x", "S2SNet"]


def test_a_failed_point_is_left_out_of_a_curve():
    axes = Figure().add_subplot()
    headlines = {("a", "t", "l2", 1.0): line(None), ("a", "t", "l2", 2.0): line(0.5)}
    curves.draw(headlines, axes, "l2", "t", {"a": "A", "b": "B"}, {"a": 1, "b": 2})
    assert axes.lines[0].get_xdata().tolist() == [2.0]


# ------------------------------------------------------------------ page


def test_the_page_has_every_line_and_every_defence(folder, html):
    lines = read_table(folder / "table.csv")
    assert len(re.findall(r'<tr class="[^"]*" data-defence', html)) == len(lines)
    text = "".join(Reader(html).text)
    for defence in json.loads((folder / "run.json").read_text())["defences"]:
        assert defence["title"] in text
        assert defence["weights"][0] in text
    assert "out of memory" in text
    assert "The S2SNet was tuned to another classifier." in text
    assert len(re.findall(r'<tr class="failed', html)) == sum(line["accuracy"] is None for line in lines) > 0


def test_the_same_result_gives_the_same_bytes(tmp_path):
    first, second = (make(tmp_path / name / "digits", **SMALL) for name in ("first", "second"))
    for folder in (first, second):
        write_report(folder)
    files = sorted(path.relative_to(first) for path in [first / "report.html", *first.glob("figures/*.svg")])
    assert len(files) == 9
    for name in files:
        assert (second / name).read_bytes() == (first / name).read_bytes(), name


def test_the_page_fetches_nothing(html):
    reader = Reader(html)
    assert reader.fetched
    assert all(value.startswith(("#", "data:")) for value in reader.fetched), reader.fetched
    assert not re.search(r"@import|url\((?!#|['\"]?data:)", html)
    assert "default-src 'none'" in html
    assert len(reader.ids) == len(set(reader.ids))


def test_the_page_stays_light(folder):
    assert (folder / "report.html").stat().st_size < 3_000_000
    assert fewer(16, 100, 50) == 16
    assert fewer(16, 100, 200) == 8
    assert fewer(16, 100, 100_000) == 1


def test_names_and_notes_are_shown_and_not_obeyed(tmp_path):
    classes = [EVIL, "</script>" + EVIL, "c&a"]
    folder = make(tmp_path / "evil", **SMALL, budgets={"linf": [8 / 255]}, classes=classes, notes=[EVIL])
    run = json.loads((folder / "run.json").read_text())
    run["name"] = run["command"] = EVIL
    run["defences"][1] |= {"title": EVIL, "about": EVIL}
    run["defences"].append({"name": "never judged"})
    (folder / "run.json").write_text(json.dumps(run))
    html = write_report(folder).read_text(encoding="utf-8")
    assert html.count("<script") == 2  # the data and the page's own
    assert "<script>window" not in html
    assert EVIL in "".join(Reader(html).text)
    assert EVIL not in (folder / "figures" / f"curves-linf-{WORST_CASE}.svg").read_text()


def test_a_result_without_attacks_or_images_has_a_page(tmp_path):
    folder = make(tmp_path / "bare", **SMALL, budgets={"l2": [0.5]})
    (folder / "samples.safetensors").unlink()
    html = write_report(folder).read_text(encoding="utf-8")
    assert "No images were kept" in html
    clean = [
        text for text in (folder / "table.csv").read_text().splitlines(True) if not ("white" in text or "gray" in text)
    ]
    (folder / "table.csv").write_text("".join(text for text in clean if WORST_CASE not in text))
    run = json.loads((folder / "run.json").read_text()) | {"cells": []}
    (folder / "run.json").write_text(json.dumps(run))
    assert "Nothing was attacked" in write_report(folder).read_text(encoding="utf-8")


def test_colour_images_and_large_ones(tmp_path):
    make(
        tmp_path,
        kept=2,
        size=230,
        channels=3,
        attacks={"pgd": 1.0},
        budgets={"linf": [8 / 255]},
        failing=None,
    )
    html = write_report(tmp_path).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="explorer-data">(.*?)</script>', html, re.DOTALL)[1])
    assert (data["channels"], data["shrink"], data["width"]) == (3, 3, 76)
    assert "1/3 of their size" in html


def test_the_report_knows_no_torch():
    code = "import sys, s2snet.report; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ in a browser


@pytest.fixture
def page(folder, tmp_path):
    with Page(folder / "report.html", tmp_path) as page:
        page.until("document.getElementById('explorer').dataset.shown")
        yield page
        assert page.problems == []
        # data: addresses are the inline images.
        fetched = [url for url in page.requests if not url.startswith("data:")]
        assert fetched == [(folder / "report.html").resolve().as_uri()]


def visible(page: Page, column: int) -> list[str]:
    """Return the texts of a column in the visible rows."""
    return page.value(
        f"[...document.querySelectorAll('#lines tbody tr')].filter(r => r.offsetHeight)"
        f".map(r => r.cells[{column}].dataset.v ?? r.cells[{column}].textContent)"
    )


@needs_chromium
def test_a_click_on_a_header_sorts(page):
    before = visible(page, 6)
    header = "#lines th:nth-child(7)"
    for direction, reverse in (("ascending", False), ("descending", True)):
        page.click(f"{header} button")
        assert page.value(f"document.querySelector('{header}').ariaSort") == direction
        shown = visible(page, 6)
        numbers = [float(text) for text in shown if text]
        assert numbers == sorted(numbers, reverse=reverse)
        assert sorted(shown) == sorted(before)
        assert shown[len(numbers) :] == [""] * before.count("")  # failed lines are last in either direction
    assert before.count("") > 0
    page.click("#lines th:nth-child(1) button")
    assert page.value(f"document.querySelector('{header}').ariaSort") == "none"
    assert visible(page, 0) == sorted(visible(page, 0))


@needs_chromium
def test_typing_and_choosing_filters(page, folder):
    lines = read_table(folder / "table.csv")
    page.click("#filter-text")
    page.type("identity BIM")
    expected = [line for line in lines if (line["route"], line["attack"]) == ("identity", "bim")]
    failures = [line for line in lines if "identity bim" in line["status"]]
    assert len(visible(page, 0)) == len(expected) + len(failures)
    assert page.value("document.getElementById('filter-count').value").startswith(f"{len(visible(page, 0))} of")
    page.value("document.getElementById('filter-text').select()")
    page.key("Backspace", 8)
    assert len(visible(page, 0)) == len(lines)
    page.value("document.getElementById('filter-defence').focus()")
    page.key("ArrowDown", 40)
    chosen = page.value("document.getElementById('filter-defence').value")
    assert chosen
    assert set(visible(page, 0)) == {chosen}
    assert len(visible(page, 0)) == sum(line["defence"] == chosen for line in lines)


PIXELS = "[...document.querySelectorAll('.plates canvas')].map(c => c.toDataURL())"


@needs_chromium
def test_the_explorer_shows_what_is_chosen(page):
    shown = "document.getElementById('explorer').dataset.shown"
    first, pictures = page.value(shown), page.value(PIXELS)
    assert "s2snet/white_box" in first
    assert len(pictures) == len(set(pictures)) == 5  # clean, change, adversarial, purified clean, purified
    assert page.value("document.querySelectorAll('.plates .mark').length") == 2

    page.click(".thumbs button:nth-child(3)")
    page.until(f"{shown} !== {json.dumps(first)}")
    second = page.value(shown)
    assert second.split("/")[1:] == first.split("/")[1:]
    assert not set(page.value(PIXELS)) & set(pictures)

    pictures = page.value(PIXELS)
    page.click(".chips label:nth-child(1)")
    page.until(f"{shown} !== {json.dumps(second)}")
    assert page.value(shown).endswith("/linf/2/255")
    changed = [new != old for new, old in zip(page.value(PIXELS), pictures, strict=True)]
    assert changed == [False, True, True, False, True]

    third = page.value(shown)
    page.value("document.querySelector('.chips input:checked').focus()")
    page.key("ArrowRight", 39)
    page.until(f"{shown} !== {json.dumps(third)}")
    assert page.value(shown).endswith("/linf/4/255")
    assert page.value("document.activeElement === document.querySelector('.chips input:checked')")

    page.value("document.querySelector('[data-facet=judge]').focus()")
    page.key("Home", 36)
    page.until(f"{shown}.includes('/none/')")
    assert len(page.value(PIXELS)) == 3  # no purifier, no purified images
    assert page.value("document.querySelectorAll('.answers tbody tr').length") >= 1


@needs_chromium
def test_the_adversarial_image_is_the_one_that_was_kept(page, folder):
    samples = load_file(folder / "samples.safetensors")
    run = json.loads((folder / "run.json").read_text())
    image, judge, threat, route, attack, norm, *budget = page.value(
        "document.getElementById('explorer').dataset.shown"
    ).split("/")
    key = next(
        cell["crafted"]
        for cell in run["cells"]
        if (
            judge in cell["judges"]
            and (cell["threat"], cell["route"], cell["attack"], cell["norm"]) == (threat, route, attack, norm)
        )
        and budget_text(cell["budget"], norm) == "/".join(budget)
    )
    kept = samples[f"adversarial/{key}"][samples["image"].tolist().index(int(image)), 0].ravel()
    drawn = page.value(
        "(c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data))"
        "(document.querySelectorAll('.plates canvas')[2])"
    )[::4]
    assert max(abs(255 * a - b) for a, b in zip(kept, drawn, strict=True)) <= 1.5


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways(folder, tmp_path, width):
    with Page(folder / "report.html", tmp_path, width=width, dark=True) as page:
        page.until("document.getElementById('explorer').dataset.shown")
        assert page.value("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        assert page.problems == []


@needs_chromium
def test_a_script_in_a_class_name_does_not_run(tmp_path):
    folder = make(tmp_path / "evil", **SMALL, classes=[EVIL, "</script>" + EVIL], notes=[EVIL])
    path = write_report(folder)
    with Page(path, tmp_path / "profile") as page:
        page.until("document.getElementById('explorer').dataset.shown")
        assert page.value("window.evil === undefined")
        assert page.value("document.querySelector('.plates').textContent.includes('window.evil')")
        assert page.problems == []
