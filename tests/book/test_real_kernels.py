"""The page of real kernels, from made-up records: ratios, knees and rooflines are what the records say."""

from __future__ import annotations

import numpy as np
import pytest
from quidebook.pages import real_kernels as page

from quide.experiments import kernels, records, tiny
from quide.experiments.runs import Case
from quide.stats import pack_bits

CASE = Case("resnet20", "cifar10", 0, "paper")
MS = {
    "32, PyTorch": 8.0, "32 channels last, PyTorch": 4.0, "bfloat16, PyTorch": 6.0, "32, inductor": 2.0,
    "32, ONNX Runtime": 3.0, "8, ONNX Runtime": 1.5, "8, inductor": 2.5, kernels.SIMULATED: 5.0,
}  # fmt: skip
LAYERS = [
    {"name": "a", "flops": 1_000_000, "bytes": 500_000.0, "ms": 2.0},
    {"name": "b", "flops": 100_000_000, "bytes": 100_000.0, "ms": 30.0},
]


def record(run, values: dict) -> records.Record:
    made = {"date": "2026-01-01", "git_commit": None, "cpu": "x", "threads": 1, "accelerator": None, "packages": {}}
    return records.Record(run.spec, values, run.code, run.data, made, 1.0)


@pytest.fixture
def known() -> page.KernelRecords:
    noise = {"noisy": False, "reasons": []}
    timed = record(
        kernels.timing(CASE, 64, 1),
        {
            "latencies": {name: {"median_ms": ms} for name, ms in MS.items()},
            "absent": {"8, OpenVINO": "ModuleNotFoundError: openvino is missing"},
        }
        | noise,
    )
    right = {name: 900 if "8" in name else 917 for name in MS}
    scored = record(
        kernels.accuracy(CASE),
        {
            "accuracy": {name: count / 1000 for name, count in right.items()},
            "correct": {name: pack_bits(np.arange(1000) < count) for name, count in right.items()},
            "changed": dict.fromkeys(MS, 7),
            "size": dict.fromkeys(MS, 340_000),
            "images": 1000,
        },
    )
    roofs = {
        ("resnet20", batch, 1): record(
            kernels.roofline(CASE, batch, 1),
            {
                "bandwidth": 1e9,
                "peak": {"float32": 1e10, "int8": 2e10},
                "layers": [
                    one | {"flops": batch * one["flops"], "bytes": 1000 + batch * one["bytes"]} for one in LAYERS
                ],
            }
            | noise,
        )
        for batch in (1, 64)
    }
    return page.KernelRecords({"resnet20": scored}, {("resnet20", 64, 1): timed}, roofs)


def test_a_speed_up_names_both_its_references(known):
    setting = page.shown(known.latency)
    assert page.in_words(setting) == "ResNet-20, 64 images, 1 thread"
    table = page.kernel_table(known, setting).set_index("kernel")
    ort = table.loc["8, ONNX Runtime"]
    assert (ort["times its library's 32"], ort["times the fastest 32"]) == ("2.00", "1.33")
    assert table.loc["8, inductor"]["times the fastest 32"] == "0.80" and "8, OpenVINO" not in table.index
    (facts,) = page.best_facts(known)
    (speeds,) = page.speed_table(known).to_dict("records")
    assert speeds["best 8-bit kernel"] == "1.33 (ONNX Runtime)" and speeds["timing"] == "quiet"
    assert (facts["best"], facts["worst"]) == ("8, ONNX Runtime", "8, inductor")
    assert facts["times"] == pytest.approx(4 / 3) and facts["simulated"] == pytest.approx(0.4)


def test_widths_without_a_kernel_have_no_latency(known):
    widths = page.width_table(known).set_index("bits")
    assert "no latency is made up" in widths.loc["4"].kernels and "no latency is made up" in widths.loc["2"].kernels
    assert "openvino is missing" in widths.loc["8"]["missing here"]
    knees = page.knee_table(known)
    assert set(knees["T"]) == {"simulated", "in the fastest kernel", "left out"}
    assert knees.set_index("T").loc["simulated"]["I' at 16"] == "–"


def test_the_roofline_takes_the_longer_of_both_limits(known):
    few = known.roofline["resnet20", 1, 1]
    assert page.predicted(few) == pytest.approx([0.501, 10.0])
    facts = page.roofline_facts(known)[0]
    assert facts["memory_bound"] == 1 and facts["ridge"] == pytest.approx(10) and facts["rho"] == pytest.approx(1)
    assert page.kernel_weights(known, "resnet20") == pytest.approx([1000, 1000])
    assert "oninput" in page.slider(known)
    figure, alt = page.figure_roofline(known)
    assert "batch 64: 2 layers" in alt and figure.axes


def test_changes_are_paired(known):
    table = page.changed_table(known)
    assert set(table["8 bits by"]) == {"ONNX Runtime", "inductor"}
    assert all(change.startswith("-1.70 [") for change in table["change of top-1 (pp)"])
    assert set(table["in another class than simulated"]) == {"7 of 1,000"}


def test_without_records():
    nothing = page.KernelRecords({}, {}, {})
    assert (
        page.shown(nothing.latency) is None
        and page.kernel_table(nothing, None).empty
        and page.speed_table(nothing).empty
    )
    assert page.knee_table(nothing).empty and not page.best_facts(nothing)
    assert page.slider(nothing) == "" and not nothing.used


def test_boards_are_ordered_by_time_and_by_energy():
    table = page.boards().set_index("board")
    by_time, by_energy = (list(table[name].rank(ascending=False)) for name in ("I_T", "I_E"))
    assert by_time == [1, 2, 3, 4, 5] and by_energy == [2, 1, 4, 3, 5]
    fastest = table.iloc[0]
    assert fastest.I_T == pytest.approx(4 * 0.86 / np.log2(1000 / 195.238 + 1))
    assert fastest.I_E == pytest.approx(4 * 0.86 / np.log2(0.139367 + 1))
    facts = page.board_facts()
    assert facts["tau"] == pytest.approx(0.6) and facts["boards"] == len(page.board_table()) == 5
    assert facts["pairs"] == 3 and facts["least"] == pytest.approx(4.294 / 4.495) and "RH850" in facts["slowest"]


def test_the_benchmark_s_files_are_scored_by_their_own_accuracy_and_time():
    right = {"32": np.arange(1000) < 870, "8": np.arange(1000) < 860}
    values = {
        "accuracy": {bits: hits.mean() for bits, hits in right.items()},
        "correct": {bits: pack_bits(hits) for bits, hits in right.items()},
        "latencies": {"32": {"median_ms": 3.0}, "8": {"median_ms": 1.0}},
        "size": {"32": 318_144, "8": 98_496},
    }
    table = page.tiny_table(page.KernelRecords({}, {}, {}, record(tiny.files(tiny.TinyCase()), values)))
    assert list(table.I) == [f"{0.87 / 2:.2f}", f"{4 * 0.86:.2f}"]
    assert list(table.kB) == ["318", "98"] and page.tiny_table(page.KernelRecords({}, {}, {})).empty


def test_a_layer_at_few_bits_is_compared_with_the_fastest_float32():
    none = page.KernelRecords({}, {}, {})
    assert page.linear_table(none).empty and page.linear_facts(none) is page.NO_RECORD
    known = {}
    for tokens, ms in ((1, (8.0, 2.0, 1.0, 0.5, 4.0)), (64, (40.0, 50.0, 40.0, 80.0, 60.0))):
        latencies = {name: {"median_ms": each} for name, each in zip(kernels.LINEARS, ms, strict=True)}
        size = dict(zip(kernels.LINEARS[:-1], (3200, 900, 500, 300), strict=True))
        values = {"latencies": latencies, "size": size, "noisy": False, "reasons": []}
        known[tokens, 1] = record(kernels.linear(kernels.LinearCase(), tokens, 1), values)
    made = page.KernelRecords({}, {}, {}, linear=known)
    table = page.linear_table(made).set_index("tokens")
    assert list(table["4 bits"]) == ["4.00 times", "1.00 times"] and list(table["2 bits"]) == [
        "8.00 times",
        "0.50 times",
    ]
    facts = page.linear_facts(made)
    assert (facts["few"], facts["many"], facts["tokens"], facts["smaller"]) == (4.0, 1.0, 64, 6.4)
    assert len(made.used) == 2
