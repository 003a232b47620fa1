"""The audit in report.html, in audit.html and on the terminal: all of audit.json is shown, and as text."""

import json
import re

import pytest
from audits import CHECKS, FINDINGS, VERDICTS, audited
from browser import CHROMIUM, Page
from reading import EVIL, Reader
from result_folder import DEFENCES, make

from s2snet.report import findings, write_report
from s2snet.report.audit_page import write_audit
from s2snet.report.terminal import audit_lines as lines_of
from s2snet.report.terminal import print_audit

PAGES = ("report.html", "audit.html")
TITLES = [{"name": name, "title": title} for name, (title, *_) in DEFENCES.items()]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def small(folder):
    return make(folder, images=30, kept=2, attacks={"pgd": 1.0}, budgets={"linf": [8 / 255]}, failing=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a result folder with both pages, shared by the tests that only read."""
    folder = audited(small(tmp_path_factory.mktemp("results") / "digits"))
    write_report(folder)
    assert write_audit(folder) == folder / "audit.html"
    return folder


def section(html: str, name: str) -> str:
    return re.search(rf'<section id="{name}".*?</section>', html, re.DOTALL)[0]


def text(html: str) -> str:
    return " ".join("".join(Reader(html).text).split())


# ------------------------------------------------------------------ report.html


def test_the_verdict_is_next_to_each_number(folder):
    entries = section((folder / "report.html").read_text(), "headline").split("<article")[1:]
    shown = [(entry.count('href="#audit"'), re.search(r"</i>(.*?)</span>", entry)[1]) for entry in entries]
    assert shown == [(1, VERDICTS[name]) for name in DEFENCES]


def test_a_row_a_check_and_a_column_a_defence(folder):
    shown = section((folder / "report.html").read_text(), "audit")
    heads = re.findall(r'<th scope="col"[^>]*><span>(.*?)</span>', shown)
    assert heads == [title for title, *_ in DEFENCES.values()]
    rows = {}
    for row in re.findall(r'<tr><th scope="row">.*?</tr>', shown, re.DOTALL):
        name, *cells = [text(cell) for cell in re.split(r"<td>", row)]
        rows[name] = cells
    none = "\N{EN DASH}not checked"
    assert rows == {
        "zero_gradients": ["✓PASS", none, "✗FAIL", none],
        "label_alignment": ["▲WARN"] * 4,  # of the whole evaluation
        "noise": ["✓PASS", none, "▲WARN", none],
    }
    visible = text(shown)
    for check, _, verdict, evidence, part, remedy in FINDINGS:
        assert CHECKS[check] in visible
        if verdict in ("fail", "warn"):
            assert evidence in visible and f"points at the {part}" in visible and remedy[1:] in visible
    assert "1 check passed" in visible and "2 did not apply" in visible
    assert "zero on 0%" not in visible  # a pass is one line


def test_the_sentence_at_the_head_names_whose_numbers_are_doubted(folder):
    head = (folder / "report.html").read_text().partition("<main>")[0]
    assert "Do not believe the numbers of S2SNet yet: one check failed." in text(head)


def test_a_folder_that_was_never_audited_has_no_section(tmp_path):
    folder = small(tmp_path)
    html = write_report(folder).read_text()
    assert "#audit" not in html and 'id="audit"' not in html and "badge" not in html.partition("</style>")[2]
    assert write_audit(folder) is None


def test_an_audit_that_was_off_is_reported_and_leaves_no_old_page(tmp_path):
    folder = audited(small(tmp_path), "off", [], **dict.fromkeys(DEFENCES, "OFF"))
    (folder / "audit.html").write_text("of an earlier audit")
    html = write_report(folder).read_text()
    assert findings.OFF in text(section(html, "audit"))
    assert section(html, "headline").count("</i>OFF</span>") == 4
    assert write_audit(folder) is None and not (folder / "audit.html").exists()


# ------------------------------------------------------------------ audit.html


def test_the_page_for_a_reviewer_has_every_finding_and_what_was_audited(folder):
    visible = text((folder / "audit.html").read_text())
    for check, _, _, evidence, _, _ in FINDINGS:
        assert check in visible and CHECKS[check] in visible and evidence in visible
    in_order = ("zero_gradients", "eps_one", "ball_and_box")  # with doubts, skipped, passed
    assert sorted(in_order, key=visible.index) == list(in_order)
    run = json.loads((folder / "run.json").read_text())
    for defence in run["defences"]:
        assert defence["title"] in visible and defence["judge"][:16] in visible and defence["weights"][0] in visible
    assert run["command"] in visible and run["data"]["fingerprint"] in visible and "L∞ 8/255" in visible
    assert all(version in visible for version in run["versions"].values())


def test_the_same_audit_gives_the_same_bytes(folder, tmp_path):
    again = audited(small(tmp_path / "digits"))
    assert write_audit(again).read_bytes() == (folder / "audit.html").read_bytes()


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_fetch_nothing(folder, name):
    html = (folder / name).read_text()
    reader = Reader(html)
    assert all(value.startswith(("#", "data:")) for value in reader.fetched), reader.fetched
    assert {value[1:] for value in reader.fetched if value[:1] == "#"} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    assert "default-src 'none'" in html


def evil(folder):
    """Return an audit in which every text is an injection."""
    folder = audited(small(folder), findings=[("noise", "s2snet", "fail", EVIL, EVIL, EVIL)], none=EVIL)
    audit = json.loads((folder / "audit.json").read_text())
    audit |= {"audit": EVIL, "checks": {"noise": EVIL, EVIL: EVIL}}
    (folder / "audit.json").write_text(json.dumps(audit))
    run = json.loads((folder / "run.json").read_text())
    run["defences"][2]["title"] = run["command"] = run["name"] = EVIL
    run["notes"] = [EVIL]
    (folder / "run.json").write_text(json.dumps(run))
    write_report(folder)
    write_audit(folder)
    return folder


def test_evidence_is_shown_and_not_obeyed(tmp_path):
    folder = evil(tmp_path)
    for name, scripts in zip(PAGES, (2, 0), strict=True):  # the report's own data and script
        html = (folder / name).read_text()
        assert html.count("<script") == scripts and EVIL.partition(">")[2] not in html.partition("<main>")[2]
        assert text(html).count(EVIL) > 5


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("verdicts", "doubts", "sentence"),
    [
        ("PASS PASS", [], findings.NO_DOUBT),
        ("WARN(1) PASS", ["warn"], "Read the numbers of A with care: one check gave a warning."),
        ("FAIL(1) WARN(1)", ["fail", "warn"], "Do not believe the numbers of A yet: one check failed."),
        ("FAIL(2) FAIL(1)", ["fail", "fail"], "Do not believe these numbers yet: 2 checks failed."),
    ],
)
def test_the_sentence_follows_from_the_verdicts(verdicts, doubts, sentence):
    found = [{"check": f"check {number}", "verdict": doubt} for number, doubt in enumerate([*doubts, "pass"])]
    audit = {"verdicts": dict(zip("ab", verdicts.split(), strict=True)), "findings": found}
    assert findings.consequence(audit, [{"name": "a", "title": "A"}, {"name": "b", "title": "B"}]) == sentence


def test_the_terminal_lists_checks_or_remedies(folder, capsys, monkeypatch):
    assert lines_of(folder, TITLES, remedies=False) == [
        "Audit of Undefended classifier: WARN(1), label_alignment",
        "Audit of Plain autoencoder: WARN(1), label_alignment",
        "Audit of S2SNet: FAIL(1), zero_gradients",
        "Audit of Adversarially trained: PASS, label_alignment",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    print_audit(folder)
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Audit of S2SNet: FAIL(1)")
    assert lines[at + 1 : at + 4] == [
        "  fail zero_gradients [purifier]: zero",
        "     on 100% of 32 points",
        "    -> take routes that see around it.",
    ]


# ------------------------------------------------------------------ in a browser


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_pages_are_quiet_and_do_not_scroll_sideways(folder, tmp_path, name, width):
    with Page(folder / name, tmp_path, width=width, dark=width == 390) as page:
        page.value("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert page.value("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        assert page.problems == []
        fetched = [url for url in page.requests if not url.startswith("data:")]
        assert fetched == [(folder / name).resolve().as_uri()]


@needs_chromium
def test_a_badge_leads_to_the_findings_and_a_row_opens(folder, tmp_path):
    with Page(folder / "report.html", tmp_path) as page:
        page.value("document.documentElement.style.scrollBehavior = 'auto'")  # else the second click hits a moving page
        page.click("#headline article:nth-child(3) .stands a")
        page.until("location.hash === '#audit'")
        opened = "[...document.querySelectorAll('#audit details')].map(d => d.open)"
        assert page.value(opened) == [True, False, False, False, False]  # what failed is open
        page.click("#audit tbody:nth-of-type(2) summary")
        page.until(f"({opened})[1]")
        assert page.value("document.querySelectorAll('#audit .remedy')[1].offsetHeight") > 0


@needs_chromium
def test_evidence_does_not_run(tmp_path):
    folder = evil(tmp_path / "evil")
    for name in PAGES:
        with Page(folder / name, tmp_path / name) as page:
            assert page.value("window.evil === undefined")
            assert page.problems == []
