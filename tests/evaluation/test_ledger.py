"""The ledger returns exactly what was stored, or nothing; and the verdicts of referee and judge."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from s2snet.config.evaluation import Evaluation
from s2snet.data import Images
from s2snet.evaluation.cells import Cell
from s2snet.evaluation.costs import Costs
from s2snet.evaluation.engine import Engine
from s2snet.evaluation.job import Job, chunks
from s2snet.evaluation.ledger import Ledger
from s2snet.evaluation.plan import Plan
from s2snet.evaluation.referee import distances, quality, verdict
from s2snet.evaluation.schema import CLEAN, MEASURED_SCHEMA
from s2snet.models import Defended
from s2snet.store import weights
from s2snet.store.defences import Defence


@pytest.fixture
def ledger(tmp_path):
    held = Ledger(tmp_path / "ledger")
    yield held
    held.close()


def some_rows(count: int = 6) -> pa.Table:
    random = np.random.default_rng(0)
    columns = {field.name: random.integers(0, 5, count) for field in MEASURED_SCHEMA}
    return pa.table(columns).cast(MEASURED_SCHEMA)


def some_tensors() -> dict:
    draw = torch.Generator().manual_seed(0)
    return {"adversarial": torch.rand(3, 1, 4, 4, generator=draw), "image": torch.tensor([4, 5, 6])}


def test_ledger_gives_back_what_was_put_in(ledger):
    assert ledger.judged("k", "j", 0) is None
    assert ledger.crafted("k", 0) is None
    ledger.keep_judged("k", "j", 0, some_rows())
    ledger.keep_crafted("k", 0, some_tensors())
    assert ledger.judged("k", "j", 0).equals(some_rows())
    assert all(torch.equal(ledger.crafted("k", 0)[name], tensor) for name, tensor in some_tensors().items())
    assert ledger.judged("k", "j", 1) is ledger.judged("k", "i", 0) is ledger.crafted("l", 0) is None
    assert not ledger.damaged


def test_not_a_number_is_kept_too(ledger):
    rows = some_rows().set_column(5, "margin", pa.array([float("nan")] * 6, pa.float32()))
    ledger.keep_judged("k", "j", 0, rows)
    assert np.isnan(ledger.judged("k", "j", 0)["margin"].to_numpy()).all()


@pytest.mark.parametrize("kind", ["judged", "crafted"])
def test_no_flipped_bit_gives_other_content(ledger, kind):
    """Of 150 places spread over the file: the same content comes back, or the file is set aside."""
    if kind == "judged":
        ledger.keep_judged("k", "j", 0, some_rows())
    else:
        ledger.keep_crafted("k", 0, some_tensors())
    (path,) = [path for path in ledger.folder.rglob("00000.*") if path.is_file()]
    content = path.read_bytes()
    noticed = 0
    for place in np.linspace(0, len(content) - 1, 150).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (int(place) % 8)
        path.write_bytes(flipped)
        got = ledger.judged("k", "j", 0) if kind == "judged" else ledger.crafted("k", 0)
        noticed += got is None
        if got is None:
            assert not path.exists()
        elif kind == "judged":
            assert got.equals(some_rows()), place
        else:
            assert all(torch.equal(got[name], tensor) for name, tensor in some_tensors().items()), place
    assert noticed == len(ledger.damaged) > 50


def test_a_whole_file_of_other_rows_is_set_aside(ledger):
    """Sound as parquet, with the checksum of the rows it should hold."""
    ledger.keep_judged("k", "j", 0, some_rows())
    (path,) = ledger.folder.rglob("00000.parquet")
    stated = pq.read_table(path).schema.metadata
    pq.write_table(some_rows().slice(0, 5).replace_schema_metadata(stated), path)
    assert ledger.judged("k", "j", 0) is None
    assert ledger.damaged == [str(path)]


def test_a_lock_ends_with_its_run(tmp_path):
    first = Ledger(tmp_path / "ledger")
    with pytest.raises(ValueError, match="in use by another run"):
        Ledger(tmp_path / "ledger")
    first.close()
    Ledger(tmp_path / "ledger").close()


def test_chunks_are_consecutive_and_cover_the_selection():
    assert [list(part) for part in chunks(10, 23)] == [list(range(10)), list(range(10, 20)), list(range(20, 23))]
    assert [place for part in chunks(7, 25) for place in part] == list(range(25))
    assert [list(part) for part in chunks(360, 2)] == [[0, 1]]


def test_a_sample_a_fit_and_a_failure_are_kept_by_their_own_names(ledger):
    ledger.keep_crafted("k", 0, some_tensors(), sample=True)
    assert ledger.crafted("k", 0) is None
    assert torch.equal(ledger.crafted("k", 0, sample=True)["image"], some_tensors()["image"])
    assert ledger.fit("k") is None
    ledger.keep_fit("k", some_tensors())
    assert torch.equal(ledger.fit("k")["adversarial"], some_tensors()["adversarial"])
    assert ledger.failures() == {}
    ledger.keep_failure("k", 2, "a reason")
    ledger.keep_failure("k", 0, "another")
    ledger.keep_failure("l", 0, "third")
    assert ledger.failures() == {"k": {0: "another", 2: "a reason"}, "l": {0: "third"}}
    ledger.forget_failures()
    assert ledger.failures() == {}


def test_further_ranks_write_without_the_lock(tmp_path):
    first, second = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger", hold=False)
    second.keep_judged("k", "j", 1, some_rows())
    assert first.judged("k", "j", 1).equals(some_rows())
    second.close()
    with pytest.raises(ValueError, match="in use by another run"):
        Ledger(tmp_path / "ledger")
    first.close()


def test_nulls_are_kept_as_nulls(ledger):
    rows = some_rows()
    place = rows.schema.get_field_index("psnr")
    rows = rows.set_column(place, "psnr", pa.array([None, 1.0, None, 2.0, 0.0, None], pa.float32()))
    ledger.keep_judged("k", "j", 0, rows)
    assert ledger.judged("k", "j", 0)["psnr"].to_pylist() == [None, 1.0, None, 2.0, 0.0, None]


EPS = {"linf": 0.1, "l2": 0.3, "l1": 0.7}


@pytest.mark.parametrize("norm", EPS)
def test_the_referee_measures_without_slack(norm):
    """In float64: at the radius is inside, the next number beyond it is outside."""
    images = torch.zeros(2, 1, 1, 1)
    eps = float(torch.tensor(EPS[norm]))
    at = torch.full_like(images, eps)
    assert verdict(images, at, norm, eps).ok
    at[1] = torch.nextafter(at[1], torch.tensor(1.0))
    ruling = verdict(images, at, norm, eps)
    assert not ruling.ok
    assert ruling.reason.startswith(f"1 of 2 images outside the {norm} ball by up to ")


def test_distances_by_hand():
    clean = torch.tensor([[0.0, 0.5], [1.0, 0.0]])
    moved = torch.tensor([[0.3, 0.1], [1.0, 0.0]])
    found = distances(clean, moved)
    expected = {"linf": [0.4, 0.0], "l2": [0.5, 0.0], "l1": [0.7, 0.0], "l2_normalised": [1.0, 0.0]}
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values).double(), rtol=1e-6, atol=1e-7)


def test_distances_after_taking_mean_and_std_out():
    draw = torch.Generator().manual_seed(0)
    clean, moved = torch.rand(2, 4, 3, 5, 5, generator=draw)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 1.0]
    found = distances(clean, moved, mean, std)
    shape = (1, 3, 1, 1)
    scaled = [(x.double() - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape) for x in (clean, moved)]
    expected = [(b - a).norm() / a.norm() for a, b in zip(*scaled, strict=True)]
    torch.testing.assert_close(found["l2_standardised"], torch.stack(expected), rtol=1e-6, atol=0)
    assert "l2_standardised" not in distances(clean, moved)
    assert not torch.allclose(found["l2_standardised"], found["l2_normalised"], rtol=0.05)


def test_psnr_and_ssim_by_their_formulas():
    """PSNR -10 log10(mse); SSIM of constant images (2ab + c1) / (a^2 + b^2 + c1), c1 = 0.01^2; clipped to [0, 1]."""
    images = torch.tensor([0.4, 0.5, 1.0])[:, None, None, None].expand(3, 1, 12, 12).contiguous()
    purified = torch.tensor([0.5, 0.5, 1.7])[:, None, None, None].expand(3, 1, 12, 12).contiguous()
    found = quality(purified, images)
    assert found["psnr"][0] == pytest.approx(20.0, rel=1e-5)
    assert np.isinf(found["psnr"][1:]).all()
    assert found["ssim"] == pytest.approx([(2 * 0.4 * 0.5 + 1e-4) / (0.4**2 + 0.5**2 + 1e-4), 1.0, 1.0], rel=1e-4)
    draw = torch.Generator().manual_seed(0)
    images, purified = torch.rand(2, 5, 3, 8, 8, generator=draw)
    found = quality(purified, images)
    expected = -10 * (purified - images).pow(2).flatten(1).mean(dim=1).log10()
    assert found["psnr"] == pytest.approx(expected.numpy(), rel=1e-5)
    assert "ssim" not in found  # smaller than its window


class Answers(nn.Module):
    """Answers the same logits to whatever comes."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits[: len(images)]


def judged_clean(ledger, logits: list[list[float]], labels: list[int]) -> list[dict]:
    """The rows of clean images before a judge with these answers."""
    count = len(labels)
    images = Images(torch.rand(count, 1, 2, 2), torch.tensor(labels), torch.arange(count) + 100, ["a", "b"])
    module = Defended(None, Answers(logits))
    defence = Defence("d", "d", module, [], weights.fingerprint(module), "")
    cell = Cell({"attack": "none"}, "none", [(CLEAN, "", ("d",))])
    job = Job(Evaluation(), "made up", images, [defence], ledger.folder)
    engine = Engine(job, Plan([cell], {}, {}, Costs((1, 2, 2), 2)), ledger)
    assert engine.run()
    engine.conclude()
    assert cell.status == "done", cell.reason
    return pa.concat_tables(engine.rows()).to_pylist()


def test_a_judge_that_answers_nan_is_never_right(ledger):
    """argmax of NaN is a class like any other: it must not be the label by chance."""
    nan, inf = float("nan"), float("inf")
    logits = [[nan, nan], [nan, 0.0], [0.0, nan], [inf, 0.0], [0.0, -inf], [2.0, 0.0], [0.0, 2.0]]
    rows = judged_clean(ledger, logits, labels=[0] * len(logits))
    assert [row["prediction"] for row in rows] == [-1, -1, -1, -1, -1, 0, 1]
    assert [row["correct"] for row in rows] == [False] * 5 + [True, False]
    assert [np.isnan(row["confidence"]) for row in rows] == [True] * 5 + [False] * 2


def test_margin_and_confidence_by_hand(ledger):
    first, second = judged_clean(ledger, [[3.0, 1.0], [3.0, 1.0]], labels=[0, 1])
    assert (first["margin"], second["margin"]) == (2.0, -2.0)
    assert first["confidence"] == second["confidence"] == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-6)
    assert (first["image"], second["image"]) == (100, 101)
    assert (first["correct"], second["correct"]) == (True, False)
