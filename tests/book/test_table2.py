"""Table 2: the searched networks, beside all configurations and beside the row that the paper leaves out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quidebook.shared import table2

from quide import metric
from quide.experiments.recipes import SEARCHED


def test_the_wall_is_the_most_accurate_within_the_budget(truth):
    land = truth.main
    for counted in (land, land.size_weighted()):
        budget = metric.compression_ratio(SEARCHED, None if counted is land else land.num_weights)
        allowed = [i for i, c in enumerate(counted.compression) if c >= budget - 1e-9]
        expected = max(allowed, key=lambda i: counted.accuracy[i])
        assert table2.wall(counted, SEARCHED) == land.configurations[expected]


def test_without_a_penalty_the_most_accurate_wins(truth):
    land = truth.main
    assert table2.penalized(land, 0.0) == land.configurations[int(land.accuracy.argmax())]


def test_table_2_always_holds_the_uniform_widths(truth):
    table = table2.table(truth).set_index("network")
    for bits in (8, 4):
        widths = (bits,) * 4
        shown = table.loc[f"uniform {bits}"]
        assert shown["ours I'"] == f"{truth.main.fitness[widths]:.3f}"
        both = [100 * each.accuracy[each.index_of(widths)] for each in truth.landscapes.values()]
        assert shown["ours P (%)"] == f"{np.mean(both):.2f} ± {np.std(both, ddof=1):.2f}"
    assert table.loc["the paper's GA", "paper P (%)"] == "75.02"
    assert table.loc["the paper's GA", "paper I'"] == "0.983"
    assert table.loc["BRECQ (estimate)", "ours P (%)"] == "–"
    fitted = table.index[table.reason.str.contains("was chosen by this number")]
    assert set(fitted) == {"uniform 4", "the paper's GA"}  # by which the quantizer was chosen


def test_uniform_8_bits_scores_above_the_searched_network_on_cifar10(truth):
    facts = table2.beside_cifar10(truth)
    assert facts["uniform"] == pytest.approx(4 * (0.7981 - 0.5) / math.log2(2.16))
    assert facts["uniform"] > facts["score"] == 0.983
    assert 4 * (facts["needed"] - 0.5) / math.log2(2.16) == pytest.approx(0.983)
    assert facts["loss_pp"] == pytest.approx(2.51, abs=0.01)
    at_threshold = [c * (p - facts["threshold"]) for c, p in ((32 / 7, 0.7502), (4, 0.7981))]
    assert at_threshold[0] == pytest.approx(at_threshold[1])
    ranks = [(land.place((8, 8, 8, 8)), land.place(SEARCHED)) for land in truth.landscapes.values()]
    assert (facts["networks"], facts["ahead"]) == (2, sum(eight < searched for eight, searched in ranks))
    assert facts["uniform_ranks"] == f"{ranks[0][0]}, {ranks[1][0]}"
    assert facts["searched_ranks"] == f"{ranks[0][1]}, {ranks[1][1]}"
    assert set(facts) - set(table2.beside_cifar10()) == {
        "networks", "ahead", "searched_ranks", "uniform_ranks", "configurations"
    }  # fmt: skip


def test_uniform_8_bits_scores_above_the_searched_network_on_imagenet():
    facts = table2.beside_imagenet()
    assert facts["score"] == 0.350 and facts["haq"] == 0.225
    assert facts["equal"] == pytest.approx(0.350 * 4 / (32 / (56 / 6)), rel=1e-3)
    assert 4 * (0.6936 - 0.10) / math.log2(facts["slower"] + 1) == pytest.approx(0.350)
    assert (round(facts["slower"]), round(facts["own"])) == (109, 55)


def test_uniform_8_bits_is_added_to_both_tables():
    table = table2.beside_table()
    added = table[table["widths"] == "8 (added here)"]
    assert added["I'"].tolist() == ["0.408", "at least 1.073"]
    assert len(table) == 7 and not table.isna().any().any()
    assert not {"nan", "None"} & set(" ".join(table.to_numpy().ravel()).split())
