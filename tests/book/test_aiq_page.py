"""The page of AIQ: its facts, from the records there are and from made-up ones."""

from __future__ import annotations

import numpy as np
import pytest
from quidebook.pages import aiq
from quidebook.report import Absent
from quidebook.shared import aiq as shared
from quidebook.shared import throughput as deployed
from quidebook.verdicts import ABSENT, NOISY, SUPPORTS, UNDECIDED

from quide.experiments import paper, records, throughput
from quide.experiments.aiq import THEIRS, AiqCase, networks, search
from quide.stats import pack_bits

LAYERS = ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "linear"]
TRAFFIC = {
    "layers": LAYERS, "num_weights": [400, 800, 1600, 3200, 640],
    "flops": 1_000_000, "fixed_bytes": 30_000.0, "activation_bytes": 29_000.0,
}  # fmt: skip
IMAGES = 1000


def hits(right: int) -> str:
    return pack_bits(np.arange(IMAGES) < right)


def record(run, values: dict) -> records.Record:
    made = {"date": "2026-01-01", "git_commit": None, "cpu": "x", "threads": 1, "accelerator": None, "packages": {}}
    return records.Record(run.spec, values | {"images": IMAGES, "traffic": TRAFFIC}, run.code, run.data, made, 1.0)


@pytest.fixture
def known() -> shared.AiqRecords:
    right = {"32": 919, "8": 920, "4": 899, "greedy": 912, "random 1": 905, "random 2": 915}
    right |= {f"theirs {name}": right[name] for name in ("32", "8", "4", "greedy")}
    widths = {"32": [32] * 5, "8": [8] * 5, "4": [4] * 5, "greedy": [8, 8, 4, 4, 8]}
    nets = record(
        networks(AiqCase(THEIRS)),
        {
            "accuracy": {name: count / IMAGES for name, count in right.items()},
            "correct": {name: hits(count) for name, count in right.items()},
            "same_weights": {"8": 1.0, "4": 1.0},
            "widths": widths,
        },
    )
    every = [
        ((a, b, c, d, e), a + b + c + d + e)
        for a in (32, 4)
        for b in (32, 4)
        for c in (32, 4)
        for d in (32, 4)
        for e in (32, 4)
    ]
    full = 1990
    evaluated = [[list(bits), full - (160 - total) // 14, 0.0] for bits, total in every]
    exhaustive = record(
        search(AiqCase(THEIRS), "exhaustive"),
        {
            "found": [4] * 5,
            "fitness": 0.0,
            "evaluated": evaluated,
            "tested": [919 - (160 - t) // 4 for _, t in every],
            "accuracy": {},
            "correct": {},
        },
    )
    greedy = record(
        search(AiqCase(THEIRS)),
        {
            "found": [4, 4, 4, 4, 8],
            "fitness": 0.0,
            "evaluated": [[[32] * 5, 2000, 0.0], [[4, 4, 4, 4, 8], 1990, 1.0]],
            "accuracy": {"32": 0.919, "found": 0.9},
            "correct": {"32": hits(919), "found": hits(900)},
        },
    )
    return shared.AiqRecords({THEIRS: nets}, {}, (exhaustive, greedy))


def test_facts_of_made_up_records(known):
    facts = aiq.reproduced(known)
    assert facts["right"] == 3 and facts["same"] == 1.0  # 91.02 % of 1,000 images are not 912
    assert facts["change"].estimate == pytest.approx(-0.7) and (facts["four"], facts["eight"]) == (2, 3)
    (row,) = aiq.search_table(known).to_dict("records")
    assert row["layers at 4, 8, 32"] == "4, 1, 0" and row["change there (pp)"] == "-0.50"
    (drawn,) = aiq.random_facts(known)
    assert (drawn["count"], drawn["better"]) == (2, 1) and drawn["best"].estimate == pytest.approx(0.3)


def test_each_objective_chooses_what_it_says(known):
    every = shared.grouped(known)
    chosen = shared.choices(every)
    budget = every.kilobytes[chosen["AIQ, their program"]]
    haq = chosen["HAQ's: best within AIQ's bytes"]
    assert every.kilobytes[haq] <= budget
    assert every.selected[haq] == every.selected[every.kilobytes <= budget].max()
    mine = chosen["a deployer's: fewest bytes within 1 pp"]
    close = every.selected >= every.selected[every.full] - 0.01
    assert close[mine] and every.kilobytes[mine] == every.kilobytes[close].min()
    edge = shared.frontier(every)
    for place in edge:
        beaten = (every.kilobytes <= every.kilobytes[place]) & (every.tested > every.tested[place])
        assert not beaten.any()
    assert chosen["in hindsight: fewest bytes within 1 pp on the test images"] in edge


def test_what_is_stated_is_the_published_numbers():
    table = paper.aiq()
    assert table.index.is_unique and table.notna().all().all()
    assert shared.stated("greedy.accuracy") == pytest.approx(0.9102)
    assert 81_626_368 / shared.stated("int8.bytes") == pytest.approx(shared.stated("int8.intensity"), rel=1e-12)
    prefers = aiq.objective_table().set_index("objective").prefers
    assert prefers["as printed"] == "uniform 4 bits" and prefers["as in their program"] == "their greedy search"
    assert shared.turning_point()["turn"] == pytest.approx(0.832, abs=5e-4)
    assert shared.exchange() == pytest.approx({"program": 1.5, "printed": 9.0})


@pytest.mark.slow
def test_groups_ignored_make_mobilenet_18_times_too_intense():
    facts = aiq.mobilenet()
    assert facts["ignored"] == pytest.approx(facts["stated"], abs=5e-3) and facts["times"] == pytest.approx(
        18.5, abs=0.05
    )


def test_the_committed_records_reproduce_the_authors_networks():
    known = shared.found()
    facts = aiq.reproduced(known)
    assert (facts["right"], facts["of"], facts["images"], facts["same"]) == (4, 4, 10_000, 1.0)
    batches = aiq.batch_facts(known)
    assert [round(100 * batches[f"at_{batch}"], 1) for batch in (1, 8, 64, 128)] == [52.3, 7.0, 0.9, 0.4]
    assert aiq.claim_table(known)["both halves hold"].tolist() == ["no", "no", "yes"]


def timed(searched: float, reasons: tuple[str, ...] = ()) -> deployed.Deployed:
    """Full precision takes 100 ms; half of it folded, by PyTorch, and by another library."""
    ms = {throughput.FULL: 100.0, throughput.FOLDED: 50.0, throughput.SEARCHED: searched, throughput.ALL: 20.0}
    ms |= dict(zip(throughput.DRAWN, (90.0, 60.0, 80.0), strict=True))
    names = {f"{which}, {library}": each for which, each in ms.items() for library in throughput.LIBRARIES}
    names |= {"32, ONNX Runtime": 40.0}
    del names["32 folded, ONNX Runtime"], names["32 folded, OpenVINO"]
    case = throughput.case_of()
    scored = {"accuracy": dict.fromkeys(names, 0.8), "layers": {throughput.SEARCHED: ["a", "b"]}}
    latencies = {name: {"median_ms": each} for name, each in names.items()}
    values = {"latencies": latencies, "reasons": list(reasons)}
    of = {batch: record(throughput.timing(case, batch), values) for batch in throughput.BATCHES}
    return deployed.Deployed(record(throughput.accuracy(case), scored), of)


def test_a_speed_up_is_told_from_what_folding_alone_gives():
    facts = deployed.deployed_facts(timed(40.0), "")
    assert (facts["searched"], facts["folded"], facts["all"], facts["onnx"]) == (2.5, 2, 5, 2.5)
    assert (facts["least"], facts["most"]) == pytest.approx((100 / 90, 100 / 60))
    rows = deployed.deployed_table(timed(40.0)).set_index(["in 8 bits", "batch"])
    assert rows.loc[("AIQ's 2 layers", "128"), ["PyTorch", "ONNX Runtime"]].tolist() == ["2.50", "1.00"]
    assert rows.loc[("2 random layers, 3 draws", "1"), "PyTorch"] == "1.11 to 1.67"


@pytest.mark.parametrize(
    ("made", "verdict"),
    [(timed(40.0), SUPPORTS), (timed(70.0), UNDECIDED), (timed(40.0, ("busy",)), NOISY), (None, ABSENT)],
)
def test_another_network_never_earns_the_tick(made, verdict):
    assert deployed.deployed_verdict(made, 1.66, "a command")[0] == verdict


def test_without_records_the_command_is_told():
    nothing = shared.AiqRecords({}, {}, ())
    for facts in (aiq.reproduced(nothing), aiq.search_facts(nothing), aiq.batch_facts(nothing)):
        assert isinstance(facts, Absent) and "quide run aiq" in facts.command
    for table in (aiq.their_table, aiq.claim_table, aiq.search_table, aiq.choice_table, aiq.verdict_table):
        assert table(nothing).empty
    assert len(aiq.absent_table(nothing, 0)) == 16
