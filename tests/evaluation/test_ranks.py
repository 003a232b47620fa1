"""One process or several: the same rows, byte for byte; every rank works; and how the work is shared."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import files, gray_box, job, timing, white_box
from tiny import ROOT, TINY, evaluate, run_python, run_script

from s2snet.evaluation.costs import shares
from s2snet.evaluation.job import chunks
from s2snet.evaluation.plan import plan
from s2snet.rank_zero import is_first

WORDS = [
    "images=26", "chunk=4", "attack=[fgsm,pgd,uap]", "attack.pgd.steps=3", "attack.uap.steps=3", "budgets.linf=[0.1]",
    "budgets.l2=[]", "samples=2", "defence=[none]", "+defence.mine.purifier={name: bit_depth}",
    "classifier.weights=random", "audit=off", "threat=[gray_box,white_box,universal]",
    "threat.white_box.routes=[exact,learned]", "threat.white_box.fit_steps=3", "threat.universal.routes=[learned]",
    "threat.universal.fit_steps=3", "output=r",
]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The result of WORDS from one process. Not to be written to."""
    return evaluate(*WORDS, f"output={tmp_path_factory.mktemp('alone') / 'r'}")[0]


def by_torchrun(*words, folder):
    return run_python("-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "evaluate.py"), *words,
                      folder=folder)  # fmt: skip


def by_itself(*words, folder):
    """The devices before the group would be the group's again."""
    return run_script("evaluate", "trainer=ddp_cpu", "trainer.devices=2", *words, folder=folder)


@pytest.mark.parametrize("start", [by_itself, by_torchrun])
def test_two_processes_write_what_one_writes(start, alone, tmp_path):
    """Run from the start, and resume what one process began."""
    there = []
    if start is by_torchrun:
        there = timing(evaluate(*WORDS, "images=12")[0])
    done = start(*TINY, *WORDS, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "r"
    assert files(folder) == files(alone)
    pieces = [(piece["crafted"], piece["chunk"]) for piece in timing(folder)]
    assert sorted(pieces) == sorted((piece["crafted"], piece["chunk"]) for piece in timing(alone))  # each once
    passes = {0: 0.0, 1: 0.0}
    for piece in timing(folder)[len(there) :]:
        passes[piece["rank"]] += piece["images"] * piece["forwards_per_image"]
    assert min(passes.values()) > 0.3 * sum(passes.values())
    # one surrogate, shared by two threats, and the perturbations of the bare classifier and of the defence
    assert len(list(folder.glob("ledger/fits/*"))) == 3
    # every message is printed once
    assert done.stderr.count("fitting the learned surrogate") == (not there)
    assert done.stdout.count("report: r/report.html") == 1
    assert "Traceback" not in done.stderr


def planned(attacks: dict):
    made = plan(job(attacks=attacks, threats=gray_box() | white_box("exact", "identity")))
    return made.cells, made.costs


CELLS, COSTS = planned({"fgsm": {}, "pgd": {"steps": 40}})


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 16))
def test_every_piece_has_one_rank_and_no_rank_more_than_its_share(world, count, chunk):
    sizes = [len(places) for places in chunks(chunk, count)]
    owner = shares(CELLS, sizes, world, COSTS)
    assert set(owner) == set(itertools.product(range(len(sizes)), range(len(CELLS))))
    assert set(owner.values()) <= set(range(world))
    assert shares(CELLS, sizes, world, COSTS) == owner
    # passes, as a measure of its own: no rank has more than twice the mean plus the most expensive piece
    cost_of = {piece: sizes[piece[0]] * (1 + sum(vars(COSTS.of(CELLS[piece[1]])).values())) * 5 for piece in owner}
    load = [sum(cost for piece, cost in cost_of.items() if owner[piece] == rank) for rank in range(world)]
    assert max(load) <= 2 * (sum(load) / world + max(cost_of.values()))


def test_as_many_ranks_as_expensive_pieces_get_one_each():
    """40 steps weigh more than all of one step together."""
    expensive = {place for place, cell in enumerate(CELLS) if cell.attack == "pgd"}
    owner = shares(CELLS, [8], len(expensive), COSTS)
    assert len({owner[0, place] for place in expensive}) == len(expensive) == 3


@pytest.mark.parametrize(
    "environment, first",
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # the first of torchrun's second machine
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "1"}, False),  # the second machine's command, started by hand
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning's second process inside one task
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_is_known_before_the_launch(environment, first, monkeypatch):
    for name in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
