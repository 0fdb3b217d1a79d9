"""The what-if page before a reader touches it: its numbers against records, the paper's data and the metric."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from quidebook import report
from quidebook.evidence import scores
from quidebook.pages import what_if as whatif
from quidebook.pages.what_if import IMAGENET, MIXED, RESNET, START
from quidebook.shared import landscape
from quidebook.shared.choices import CONTROLS, COUNTS, KERNELS, SCORES, UNITS, Offered, Position

from quide import metric
from quide.evaluate import label
from quide.experiments import paper
from quide.models import networks

TOLERANCES = (None, 0.1, 1.0)


@pytest.fixture(scope="module")
def known(checkout) -> dict[str, Offered]:
    """Offereds of the committed records and of the paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
        return whatif.networks("smoke")


@pytest.fixture
def without_records(tmp_path, monkeypatch) -> dict[str, Offered]:
    """What is left when nothing has been measured."""
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    return whatif.networks("smoke")


@pytest.fixture
def small() -> Offered:
    """Three configurations in round numbers; 8 bits has no accuracy."""
    table = pd.DataFrame({"accuracy": [0.9, math.nan, 0.8], "accuracy_origin": ["stated", "unknown", "derived"]})
    table["measured"] = [1.0, 2.0, 3.0]
    table[["paper", "ideal", "equal", "index", "gated_index"]] = math.nan
    table[["paper_origin", "index_origin", "gated_index_origin"]] = "unknown"
    table.index = ["32 bits", "8 bits", "8-4"]
    table.insert(0, "bits", pd.Series([32, 8, (8, 4)], table.index, dtype=object))
    sources = {"measured": "Latencies."}
    return Offered("k", "A < B", table, 0.9, 0.3, 10, (1, 3), "measured", "32 bits", "Accuracies.", sources)


def settings(network: Offered) -> list[Position]:
    """Positions of the controls: each kernel in two units, both counts, a few tolerances."""
    units = ("ms-batch", "ms-image")
    return [Position(network.key, *each) for each in product(network.latency_sources, units, COUNTS, TOLERANCES)]


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
    assert network.label == "ResNet-20 / CIFAR-10, published, measured"
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
        best.add(label(main.configurations[index.argmax()]))
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
                identity = f"{name}.accuracy.{label(bits)}"
                assert row.accuracy == paper.number(identity)
            assert math.isnan(row.accuracy) == (row.accuracy_origin == "unknown")
            assert math.isnan(row.paper) == (row.paper_origin == "unknown")


def test_every_condition_is_offered_with_the_papers_numbers_or_named_as_left_out(known):
    left_out = whatif.left_out(known)["conditions"]
    for name, facts in paper.conditions().iterrows():
        offered = f"{name}-paper" in known
        assert offered != (facts.label in left_out)
        if not offered and name != "mmlu-llama3-8b":
            assert paper.table1(name).latency_ms.isna().all()
    assert {RESNET, IMAGENET} <= set(known)


def test_without_records_the_paper_remains(without_records):
    assert set(without_records) and all(key.endswith("-paper") for key in without_records)
    assert all("measured" not in network.latency_sources for network in without_records.values())
    assert data_of(whatif.markup(without_records))["start"]["network"] == next(iter(without_records))


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
        for setting in settings(network):
            found = network.scores(setting)
            delta = network.tolerance if setting.tolerance is None else setting.tolerance
            threshold = metric.accuracy_threshold(network.full_precision, delta, network.num_classes)
            for name, row in network.table.iterrows():
                parts = found.compression[name], row.accuracy, row[setting.kernel] * UNITS[setting.unit].factor
                if any(map(math.isnan, parts)):
                    assert found.loc[name, ["index", "gated_index"]].isna().all()
                    continue
                assert found.loc[name, "index"] == metric.intelligence_index(*parts)
                assert found.loc[name, "gated_index"] == metric.gated_index(*parts, threshold)


def test_what_guesses_scores_nothing_at_any_tolerance(known):
    """A mean over seeds that all guess is their share of right answers, not a rounding error above it."""
    for network in known.values():
        for tolerance in np.linspace(0, 1, 101):
            gated = network.scores(replace(network.start(), tolerance=float(tolerance)))["gated_index"].dropna()
            assert ((gated == 0) | (gated > 1e-9)).all(), (network.key, tolerance)


def test_compression_is_counted_by_layers_or_by_weights(small):
    assert small.compression("nominal") == [1, 4, 32 / 6]
    assert small.compression("size") == [1, 4, 32 * 4 / (8 * 1 + 4 * 3)]
    by_size = replace(small, num_weights=None).compression("size")
    assert by_size[:2] == [1, 4] and math.isnan(by_size[2])


def test_the_knee_is_the_metrics(known, small):
    for network in known.values():
        for setting in settings(network):
            found = network.scores(setting).gated_index.dropna()
            places = list(range(len(found), 0, -1))  # rows go from the most bits to the fewest
            place = metric.knee(places, found) if len(found) else None
            first = None if place is None else found.index[places.index(place)]
            named = len(found) == len(network.table) or network.stated_knee in found
            assert network.best(setting) == (first if named else None)
            assert network.whole(setting) == (len(found) == len(network.table))
    assert small.best(Position("k", "equal")) is None
    assert small.best(Position("k", "measured", tolerance=0.0)) is None


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
        assert list(shown["latency_sources"]) == list(network.latency_sources)
        for row, (name, cells) in zip(shown["table"], network.table.iterrows(), strict=True):
            bits = tuple(row["bits"]) if isinstance(row["bits"], list) else row["bits"]
            assert (row["name"], bits) == (name, cells.bits)
            columns = ("accuracy", *KERNELS, *SCORES)
            found, known_cells = [row[column] for column in columns], [cells[column] for column in columns]
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
    assert shown["I′"]["8-4"] == f"{32 / 6 * (0.8 - small.threshold()) / penalty:.4f} ★ highest", "8 bits has no score"
    assert shown["I′"]["32 bits"] == f"{0.9 - small.threshold():.4f}"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 4, "0"),
        (math.nan, 2, "–"),
        (89645.4, 4, "89645"),
        (138.25, 4, "138.3"),
        (1.0, 3, "1.00"),
        (0.011368, 2, "0.011"),
    ],
)
def test_figures_have_no_exponent(value, digits, text):
    assert whatif._figures(value, digits) == text


def test_digits_fit_the_noise(small):
    quiet = {kernel: small.figures(kernel) for kernel in KERNELS}
    assert quiet == {"measured": 3, "paper": 4, "ideal": 3, "equal": 3}
    busy, papers = replace(small, noisy=True), replace(small, noisy=True, kernel="paper")
    assert (busy.figures("measured"), busy.figures("paper"), papers.figures("ideal")) == (2, 4, 4)
    assert papers.figures("measured") == 2, "the paper's accuracies by our clock"
    cells = whatif.table(busy, busy.start()).set_index("configuration")
    assert cells["T (ms per batch)"]["8-4"] == "3.0" and cells["I′"]["32 bits"] == f"{0.9 - busy.threshold():.3f}"


def test_a_preset_of_the_page_moves_a_network_of_the_paper_or_of_the_records(known):
    class Reader(HTMLParser):
        """The buttons, by preset."""

        presets: dict[str, dict] = {}

        def handle_starttag(self, tag, attributes):
            if "data-preset" in (found := dict(attributes)):
                self.presets[found["data-preset"]] = found

    Reader().feed(whatif.markup(known))
    assert list(Reader.presets) == ["paper", "s-batch", "ms-image", "size"]
    for found in Reader.presets.values():
        assert found["data-network"] in (RESNET, MIXED)
        assert found.get("data-unit", "ms-batch") in UNITS and found.get("data-count", "nominal") in COUNTS


# --- what is missing -------------------------------------------------------------------------------------------------


def test_no_knee_is_named_where_the_papers_own_cannot_be_computed(known):
    for key in ("cifar100-simplecnn-paper", "cifar10-simplecnn-paper"):
        network = known[key]
        scored = network.scores(network.start())["index"]
        assert network.stated_knee == "8 bits" and math.isnan(scored["8 bits"]) and scored.notna().sum() > 1
        assert network.best(network.start()) is None and network.best(network.start(), "index") is None
        cells = " ".join(whatif.table(network, network.start()).to_numpy().ravel())
        assert "★" not in cells and "▲" not in cells


def test_of_a_part_with_the_papers_knee_in_it_the_first_is_the_highest_and_not_the_knee(known):
    network = known[RESNET]
    assert not network.whole(network.start())
    assert network.best(network.start()) == "8 bits"
    marked = whatif.table(network, network.start())["I′"]
    assert [cell for cell in marked if "★" in cell] == ["0.3901 ★ highest"]


def test_a_score_that_the_paper_states_stands_where_a_part_is_missing_and_only_for_its_own_choices(known):
    network = known["cifar100-simplecnn-paper"]
    shown = whatif.table(network, network.start()).set_index("configuration")["I′"]
    assert shown["8 bits"] == f"{paper.number('cifar100-simplecnn.gated_index.8')} stated"
    assert shown["16 bits"].replace(".", "").isdigit(), "computed, so not taken from the text"
    for moved in ({"unit": "s-batch"}, {"tolerance": 0.3}, {"kernel": "equal"}, {"count": "size"}):
        assert network.stated(replace(network.start(), **moved), "gated_index").isna().all()
    for key, other in known.items():
        if not key.endswith("-paper"):
            assert other.table[list(SCORES)].isna().all(axis=None) and other.stated_knee == ""


# --- exercises -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS)
def test_positions_of_a_control_are_compared_by_the_pages_own_cells(known, control):
    for network in known.values():
        compared = whatif.compared(network, control).set_index("configuration")
        for key, option in CONTROLS[control].items():
            if control == "kernel" and key not in network.latency_sources:
                assert option.text not in compared
                continue
            expected = whatif.table(network, replace(network.start(), **{control: key}))
            assert compared[option.text].tolist() == expected["I′"].tolist()


def test_facts_of_a_position_are_those_of_the_scores(known):
    network = known[MIXED]
    found = whatif.positions(network, own={}, size={"count": "size"}, strict={"tolerance": 0.05})
    assert found["size"]["C"]["8-8-8-4"] == network.compression("size")[list(network.table.index).index("8-8-8-4")]
    assert found["own"]["P"]["8 bits"] == network.table.accuracy["8 bits"]
    assert (found["own"]["tolerance"], found["strict"]["tolerance"]) == (network.tolerance, 0.05)
    assert found["own"]["first"] == network.best(network.start())
    assert found["last_layer"] == pytest.approx(1280 / 544864)


def test_without_records_an_exercise_says_how_to_make_them():
    assert isinstance(whatif.positions(None, own={}), report.Absent)
    assert whatif.compared(None, "unit").empty and whatif.by_tolerance(None).empty


def test_the_stretches_of_the_tolerance_cover_the_slider(known):
    network = known[START]
    stretches = whatif.by_tolerance(network).itertuples(index=False)
    ends = [(float(low), float(high), knee) for low, high, knee in stretches]
    assert ends[0][0] == 0 and ends[-1][1] == 1
    assert all(two[0] == pytest.approx(one[1] + 0.01) and one[2] != two[2] for one, two in pairwise(ends))
    for tolerance in (0.0, 0.07, 0.3, 0.45, 0.99):
        knee = next(knee for low, high, knee in ends if low <= tolerance <= high)
        assert knee == (network.best(replace(network.start(), tolerance=tolerance)) or "nowhere")


def test_the_weights_counted_are_the_networks(known):
    assert known[MIXED].num_weights == tuple(
        layer.weight.numel() for layer in networks.SimpleCNN().modules() if hasattr(layer, "weight")
    )
