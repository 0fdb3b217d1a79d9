"""What pages show of real 8-bit arithmetic, from records with known numbers."""

from __future__ import annotations

import numpy as np
import pytest
from known_records import IMAGES, PROVENANCE, bits_with
from quidebook.evidence.conditions import Condition
from quidebook.pages import exp2_resnet18 as exp2
from quidebook.shared import deployed as arithmetic

from quide.experiments import deployed, records, runs
from quide.experiments.deployed import INTEGER, RUNTIME, SIMULATED, TORCH
from quide.stats import pack_bits

pytestmark = pytest.mark.usefixtures("no_records")

MEDIANS = {TORCH: 50.0, SIMULATED: 60.0, RUNTIME: 40.0, INTEGER: 20.0}


def conditions() -> list[Condition]:
    return [Condition(model, "cifar10", "paper", None, "") for model in (exp2.MODEL, exp2.PUBLISHED)]


def save(model: str = exp2.PUBLISHED, **changes) -> None:
    run = deployed.run(runs.Case(model, "cifar10", 0, "paper"))
    medians = MEDIANS | changes.pop("medians", {})
    latencies = {
        name: {"median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.2 * ms, "min_ms": 0.8 * ms, "passes": 10, "warmup": 1}
        for name, ms in medians.items()
    }
    shares = {RUNTIME: 0.92, INTEGER: 0.915}
    values = {
        "latencies": latencies, "accuracy": shares, "agreement": 0.99, "reasons": [], "noisy": False,
        "aa_ratio": 1.01,
        "correct": {name: pack_bits(bits_with(share, 0)) for name, share in shares.items()},
        "bytes": {RUNTIME: 1_000_000, INTEGER: 300_000}, "libraries": {},
    }  # fmt: skip
    records.save(records.Record(run.spec, values | changes, run.code, run.data, PROVENANCE, 1.0))


def test_without_records_there_is_nothing_but_the_command():
    assert arithmetic.table(conditions()).empty
    assert arithmetic.facts(conditions()) == []
    assert not arithmetic.faster_than_simulated(conditions())
    command = exp2.NOT_DEPLOYED.command
    assert "quide[deploy]" in command and command.endswith(exp2.BESIDE)


def test_latencies_are_told_against_both_libraries():
    save()
    rows = arithmetic.table(conditions()).set_index("bits, library")
    assert rows.index.tolist() == list(deployed.CONFIGURATIONS) and set(rows.network) == {"ResNet-20"}
    assert rows["of 32 bits, PyTorch"].tolist() == [
        "1.00 (0.90 to 1.20)", "1.20 (1.08 to 1.44)", "0.80 (0.72 to 0.96)", "0.40 (0.36 to 0.48)",
    ]  # fmt: skip
    assert rows["of 32 bits, same library"].tolist() == ["1.00", "1.20", "1.00", "0.50"]
    assert rows["MB"].tolist() == ["–", "–", "1.0", "0.3"]
    assert rows["P (%)"][INTEGER].startswith("91.50 [") and rows["P (%)"][TORCH] == "–"
    assert IMAGES == 2000  # what the interval is over


def test_the_facts_are_the_ratios_and_what_they_do_to_the_index():
    save()
    (facts,) = arithmetic.facts(conditions())
    assert (facts["simulated"], facts["integers"], facts["change"]) == pytest.approx((1.2, 0.5, -0.5))
    assert facts["gain_simulated"] == pytest.approx(4 * np.log2(51) / np.log2(61))
    assert facts["gain_integers"] == pytest.approx(4 * np.log2(41) / np.log2(21))
    assert facts["noise"] == "" and arithmetic.faster_than_simulated(conditions())


@pytest.mark.parametrize("medians", [{INTEGER: 45.0}, {SIMULATED: 49.0}])
def test_no_conclusion_is_drawn_that_the_numbers_do_not_bear(medians):
    save(medians=medians, reasons=["others"], noisy=True)
    assert not arithmetic.faster_than_simulated(conditions())
    assert "others" in arithmetic.facts(conditions())[0]["noise"]


def test_the_record_with_most_passes_is_shown_and_a_stale_one_is_said(monkeypatch):
    save()
    run = deployed.run(runs.Case(exp2.PUBLISHED, "cifar10", 0, "paper"))
    known = records.load(run.spec)
    records.save(records.Record(run.spec, known.values, "other", run.data, PROVENANCE, 1.0))
    with pytest.warns(records.StaleRecordWarning, match="is stale"):
        arithmetic.measured(conditions())
