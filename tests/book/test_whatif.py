"""The what-if page before a reader touches it: its numbers against records, the paper's data and the metric."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pandas as pd
import pytest
from quidebook import report
from quidebook.evidence import scores
from quidebook.pages import what_if as whatif
from quidebook.pages.what_if import COUNTS, KERNELS, MIXED, RESNET, START, UNITS, Choice, Network
from quidebook.shared import landscape

from quide import metric
from quide.experiments import mixed, paper, runs

TOLERANCES = (None, 0.1, 1.0)


@pytest.fixture(scope="module")
def known(checkout) -> dict[str, Network]:
    """Networks of the committed records and of the paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
        return whatif.networks("smoke")


@pytest.fixture
def without_records(tmp_path, monkeypatch) -> dict[str, Network]:
    """What is left when nothing has been measured."""
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    return whatif.networks("smoke")


@pytest.fixture
def small() -> Network:
    """Three configurations in round numbers; 8 bits has no accuracy."""
    table = pd.DataFrame({"accuracy": [0.9, math.nan, 0.8], "accuracy_origin": ["stated", "unknown", "derived"]})
    table["measured"] = [1.0, 2.0, 3.0]
    table[["paper", "ideal", "equal"]] = math.nan
    table["paper_origin"] = "unknown"
    table.index = ["32 bits", "8 bits", "8-4"]
    table.insert(0, "bits", pd.Series([32, 8, (8, 4)], table.index, dtype=object))
    return Network("k", "A < B", table, 0.9, 0.3, 10, (1, 3), "measured", "Accuracies.", {"measured": "Latencies."})


def choices(network: Network) -> list[Choice]:
    """Positions of the controls: each kernel in two units, both counts, a few tolerances."""
    units = ("ms-batch", "ms-image")
    return [Choice(network.key, *each) for each in product(network.latency_sources, units, COUNTS, TOLERANCES)]


def data_of(markup: str) -> dict:
    """The JSON that the page's script reads."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', markup, re.DOTALL)[1])


# --- what is known ---------------------------------------------------------------------------------------------------


def test_measured_networks_hold_the_means_of_the_records(known, checkout, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    for dataset in ("mnist", "cifar10"):
        measured = scores.measured("simplecnn", dataset, "paper")
        network = known[f"{measured.condition}-measured"]
        means = measured.table.groupby("bits").mean()
        assert network.table.bits.tolist() == [32, 16, 8, 4, 2]
        for bits, row in zip(network.table.bits, network.table.itertuples(), strict=True):
            assert row.accuracy == pytest.approx(means.accuracy[bits], rel=1e-12)
            assert row.measured == pytest.approx(means.latency_ms[bits], rel=1e-12)
        assert network.threshold() == pytest.approx(measured.threshold, rel=1e-12)
        assert network.kernel == "measured" and "0, 42, 123" in network.accuracy_source
        assert measured.device in network.latency_sources["measured"]


def test_a_published_network_stands_beside_the_papers_and_neither_lends_the_other_latencies(
    known, checkout, monkeypatch
):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    network, measured = known["cifar10-resnet18-published"], scores.measured("resnet20", "cifar10", "paper")
    assert "ResNet-20 instead, as published" in network.label
    assert network.table.accuracy.iloc[0] == pytest.approx(measured.summary().accuracy[0], rel=1e-12)
    assert network.threshold() == pytest.approx(measured.threshold, rel=1e-12)
    assert "paper" not in network.latency_sources and network.table.paper.isna().all()
    theirs = known["cifar10-resnet18-paper"].table.measured.dropna()
    assert not set(theirs) & set(network.table.measured)


def test_mixed_precision_shows_uniform_widths_the_papers_topology_and_the_best(known, checkout, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    found = landscape.known()
    network, main = known[MIXED], found.main
    accuracy = np.mean([land.accuracy for land in found.landscapes.values()], axis=0)
    threshold = metric.accuracy_threshold(network.full_precision, network.tolerance, 10)
    best = set()
    for land in (main, main.size_weighted()):
        index = metric.gated_index(land.compression, accuracy, main.latency_ms, threshold)
        best.add(mixed.label(main.configurations[index.argmax()]))
    assert set(network.table.index) == {"32 bits", "16 bits", "8 bits", "4 bits", "2 bits", "8-8-8-4"} | best
    timed = found.timed.values["latencies"]
    for name, bits in (("8 bits", (8,) * 4), ("8-8-8-4", (8, 8, 8, 4))):
        assert network.table.measured[name] == main.latency_ms[main.index_of(bits)], "as EXP-3 counts it"
        assert network.table.accuracy[name] == pytest.approx(accuracy[main.index_of(bits)])
    assert network.table.measured["32 bits"] == timed["32"]["median_ms"]
    assert network.num_weights == main.num_weights


def test_the_papers_cells_are_those_of_its_text_and_no_others(known):
    for name in paper.conditions().index.drop("mmlu-llama3-8b"):
        if (network := known.get(f"{name}-paper")) is None:
            continue
        stated = paper.table1(name).set_index("bits")
        for bits, row in zip(network.table.bits, network.table.itertuples(), strict=True):
            if isinstance(bits, int):
                assert np.array_equal([row.accuracy, row.paper], stated.loc[bits, ["accuracy", "latency_ms"]], True)
                assert row.accuracy_origin == stated.accuracy_origin[bits]
            else:
                identity = f"{name}.accuracy.{mixed.label(bits)}"
                assert row.accuracy == paper.number(identity)
            assert math.isnan(row.accuracy) == (row.accuracy_origin == "unknown")
            assert math.isnan(row.paper) == (row.paper_origin == "unknown")


def test_every_condition_is_offered_with_the_papers_numbers_or_named_as_left_out(known, monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", said.append)
    whatif.say_left_out(known)
    for name, facts in paper.conditions().iterrows():
        offered = f"{name}-paper" in known
        assert offered != (facts.label in said[0])
        if not offered and name != "mmlu-llama3-8b":
            assert paper.table1(name).latency_ms.isna().all()
    assert {RESNET, whatif.IMAGENET} <= set(known)


def test_without_records_the_paper_remains(without_records):
    assert set(without_records) and all(key.endswith("-paper") for key in without_records)
    assert all("measured" not in network.latency_sources for network in without_records.values())
    assert data_of(whatif.markup(without_records))["start"]["network"] == next(iter(without_records))
    assert "size" not in whatif.presets(without_records) and "paper" in whatif.presets(without_records)


def test_a_smaller_profile_stands_in_and_says_so(monkeypatch, known, checkout):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    full = scores.measured("simplecnn", "mnist", "paper")
    monkeypatch.setattr(scores, "measured", lambda model, dataset, profile: full if profile == "quick" else None)
    network = whatif.networks("smoke")["mnist-simplecnn-measured"]
    assert "(quick profile)" in network.label and "quick profile" in network.accuracy_source
    assert "profile" not in known["mnist-simplecnn-measured"].label


def test_nothing_known_is_an_error_that_helps():
    with pytest.raises(ValueError, match=r"known is empty.*restore data/paper"):
        whatif.markup({})


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_the_metrics_and_unknown_stays_unknown(known):
    for network in known.values():
        for choice in choices(network):
            found = network.scores(choice)
            delta = network.tolerance if choice.tolerance is None else choice.tolerance
            threshold = metric.accuracy_threshold(network.full_precision, delta, network.num_classes)
            for name, row in network.table.iterrows():
                parts = found.compression[name], row.accuracy, row[choice.kernel] * UNITS[choice.unit].factor
                if any(map(math.isnan, parts)):
                    assert found.loc[name, ["index", "gated_index"]].isna().all()
                    continue
                assert found.loc[name, "index"] == metric.intelligence_index(*parts)
                assert found.loc[name, "gated_index"] == metric.gated_index(*parts, threshold)


def test_compression_is_counted_by_layers_or_by_weights(small):
    assert small.compression("nominal") == [1, 4, 32 / 6]
    assert small.compression("size") == [1, 4, 32 * 4 / (8 * 1 + 4 * 3)]
    by_size = replace(small, num_weights=None).compression("size")
    assert by_size[:2] == [1, 4] and math.isnan(by_size[2])


def test_the_knee_is_the_metrics(known, small):
    for network in known.values():
        for choice in choices(network):
            found = network.scores(choice).gated_index.dropna()
            places = list(range(len(found), 0, -1))  # rows go from the most bits to the fewest
            place = metric.knee(places, found) if len(found) else None
            assert network.best(choice) == (None if place is None else found.index[places.index(place)])
    assert small.best(Choice("k", "equal")) is None
    assert small.best(Choice("k", "measured", tolerance=0.0)) is None


def test_imagined_latencies(known):
    for network in known.values():
        own = network.table[network.kernel]
        first = own.first_valid_index()
        assert network.table.equal.tolist() == [own[first]] * len(own)
        if "ideal" not in network.latency_sources:
            assert network.table.ideal.isna().all() and not isinstance(network.table.bits[first], int)
            continue
        compression = pd.Series(network.compression("size"), network.table.index)
        expected = own[first] * compression[first] / compression
        np.testing.assert_allclose(network.table.ideal, expected, rtol=1e-12)
        assert network.table.ideal[first] == own[first]
    assert any("ideal" not in network.latency_sources for network in known.values())


@pytest.mark.parametrize(
    ("moved", "columns"),
    [
        ({"tolerance": 0.45}, {"gated_index"}),
        ({"unit": "s-batch"}, {"latency", "index", "gated_index"}),
        ({"count": "size"}, {"compression", "index", "gated_index"}),
        ({"kernel": "equal"}, {"latency", "index", "gated_index"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_control_moves_what_it_should_and_nothing_else(known, moved, columns):
    network = known[MIXED]
    before, after = network.scores(network.start()), network.scores(replace(network.start(), **moved))
    assert {column for column in before if not before[column].equals(after[column])} == columns


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_script_gets_what_python_knows(known):
    data = data_of(whatif.markup(known))
    assert list(data["networks"]) == list(known)
    assert data["start"]["network"] == START
    assert {key: unit["factor"] for key, unit in data["units"].items()} == {k: u.factor for k, u in UNITS.items()}
    for key, network in known.items():
        shown = data["networks"][key]
        assert list(shown["sources"]) == list(network.latency_sources)
        for row, (name, cells) in zip(shown["rows"], network.table.iterrows(), strict=True):
            bits = tuple(row["bits"]) if isinstance(row["bits"], list) else row["bits"]
            assert (row["name"], bits) == (name, cells.bits)
            found = [row["accuracy"], *(row["latency"][kernel] for kernel in KERNELS)]
            known_cells = [cells.accuracy, *(cells[kernel] for kernel in KERNELS)]
            assert found == [None if math.isnan(value) else value for value in known_cells]


def test_text_cannot_break_out_of_the_page(small):
    markup = whatif.markup({"k": replace(small, label="</script><b>")})
    assert "<b>" not in markup and markup.count("</script>") == 1
    assert data_of(markup)["networks"]["k"]["label"] == "</script><b>"


def test_without_a_script_the_table_shows_the_start_and_says_what_is_missing(known):
    class Reader(HTMLParser):
        """Tags with a ``hidden`` attribute, and the rows of the table."""

        hidden, rows = [], []

        def handle_starttag(self, tag, attributes):
            if "hidden" in dict(attributes):
                self.hidden.append(tag)
            if tag == "tr":
                self.rows.append([])

        def handle_data(self, data):
            if self.rows:
                self.rows[-1].append(data)

    reader, markup = Reader(), whatif.markup(known)
    reader.feed(markup)
    assert reader.hidden == ["form", "div"]
    assert "need JavaScript" in markup
    expected = whatif.table(known[START], known[START].start()).to_numpy().tolist()
    assert [row[:6] for row in reader.rows[1:]] == expected


def test_the_table_marks_the_highest_and_dashes_the_unknown(small):
    shown = whatif.table(small, small.start()).set_index("configuration")
    assert shown.loc["8 bits", ["P", "I", "I′"]].tolist() == ["–", "–", "–"]
    assert shown.P["8-4"] == "80.00 % †" and shown.P["32 bits"] == "90.00 %"
    penalty = math.log2(4)
    assert shown.I["8-4"] == f"{32 / 6 * 0.8 / penalty:.3f} ▲ highest"
    assert shown["I′"]["8-4"] == f"{32 / 6 * (0.8 - small.threshold()) / penalty:.4f} ★ knee"
    assert shown["I′"]["32 bits"] == f"{0.9 - small.threshold():.4f}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (math.nan, "–"),
        (89645.4, "89645"),
        (23.3444, "23.34"),
        (138.25, "138.3"),
        (1.0, "1.000"),
        (0.011368, "0.01137"),
    ],
)
def test_figures_have_four_digits_and_no_exponent(value, text):
    assert whatif._figures(value) == text


def test_presets_promise_what_they_do(known):
    found = whatif.presets(known)
    assert list(found) == ["paper", "s-batch", "ms-image", "size"]
    stated = known[RESNET].start()
    assert found["paper"].choice == stated
    for preset in found.values():
        network = known[preset.choice.network]
        assert network.best(preset.choice) in preset.text
        if preset.choice != stated:
            before = network.best(network.start())
            after = network.best(preset.choice)
            assert (f"moves from {before} to {after}" if before != after else f"stays at {before}") in preset.text


# --- exercises -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", whatif.SOLUTIONS)
def test_solutions_are_hidden_and_computed(known, exercise, monkeypatch):
    """The text follows the numbers: with other accuracies and latencies it is another."""
    said = []
    monkeypatch.setattr(report, "say", said.append)
    whatif.say_solution(known, exercise)
    key = whatif.SOLUTIONS[exercise][0]
    other = known[key].table.copy()
    other["accuracy"] = (other.accuracy - 0.05).clip(lower=0)
    other[list(KERNELS)] *= 3
    whatif.say_solution({key: replace(known[key], table=other)}, exercise)
    whatif.say_solution({}, exercise)
    assert said[0] != said[1]
    assert all(text.startswith(":::{admonition} Solution\n:class: dropdown\n") for text in said)
    assert "nan" not in said[0] and "–" not in said[0]
    assert "not in this copy" in said[2]


def test_the_solution_on_the_tolerance_covers_the_slider(known):
    network = known[START]
    found = whatif.knees(network, network.start())
    assert found.index[0] == 0 and found.index[-1] == 1 and len(found) == 101
    for tolerance in (0.07, 0.3, 0.45, 0.99):
        assert found[tolerance] == network.best(replace(network.start(), tolerance=tolerance))
    text = whatif.SOLUTIONS["tolerance"][1](network)
    for name in found.dropna().unique():
        where = found[found == name].index
        assert f"{name} for δ from {where.min():.2f} to {where.max():.2f}" in text


def test_an_unknown_exercise_is_refused(known):
    with pytest.raises(ValueError, match="exercise must be one of unit, .*got 'units'"):
        whatif.say_solution(known, "units")


def test_the_weights_counted_are_the_networks(known):
    assert known[MIXED].num_weights == tuple(
        layer.weight.numel() for layer in runs.networks.SimpleCNN().modules() if hasattr(layer, "weight")
    )
