"""Every committed record is found by the code that would make it, and counted once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quide import _paths, latency
from quide.experiments import (
    aiq,
    campaign,
    deployed,
    imagenet_runs,
    kernels,
    ladder,
    llm_runs,
    measured,
    mixed,
    provenance,
    records,
    runs,
    throughput,
    tiny,
)


@pytest.fixture
def committed(monkeypatch) -> list[records.Record]:
    monkeypatch.delenv("QUIDE_RESULTS", raising=False)
    assert _paths.results() == _paths.home() / "data" / "results"
    return [record for profile in ("paper", "short") for record in records.collect(profile=profile)]


class Images:
    """A set of images known by its size and checksum alone."""

    def __init__(self, size: int, sha256: str):
        self.size, self.sha256 = size, sha256

    def __len__(self) -> int:
        return self.size


def remade(record: records.Record) -> list[measured.Run]:
    """The runs that today's code would make where the record was made, the record's among them."""
    spec, details = record.spec, record.spec.details
    if spec.kind.startswith("llm_"):
        return [of_language(spec)]
    if spec.dataset == imagenet_runs.DATASET:
        return [of_imagenet(spec)]
    if spec.kind.startswith("aiq_"):
        return aiq.runs(spec.seed)
    if spec.kind in ("ladder", "calibration_draws"):
        return ladder.wanted([spec.seed])
    if spec.kind == tiny.KIND:
        return [tiny.files(tiny.TinyCase(), details["batch"], details["environment"]["threads"])]
    if spec.kind == kernels.LINEAR:
        return [kernels.linear(kernels.LinearCase(), details["tokens"], details["environment"]["threads"])]
    case = runs.Case(spec.model, spec.dataset, spec.seed, spec.profile, runs.schedule_of(spec))
    if spec.kind == throughput.KIND:
        return [throughput.timing(case, details["batch"], details["environment"]["threads"])]
    if spec.kind == throughput.ACCURACY:
        return [throughput.accuracy(case)]
    if spec.kind in kernels.MEASURED:
        shapes = {"batch": details.get("batch"), "threads": details["environment"]["threads"]}
        made = {"kernel_latency": kernels.timing, "roofline": kernels.roofline}
        return [made[spec.kind](case, **shapes) if spec.kind in made else kernels.accuracy(case)]
    timings = {"latency": runs.timing, "mixed_latency": mixed.timing, "deployed": deployed.run}
    if spec.kind in timings:
        device = details["environment"]["device"]
        return [timings[spec.kind](case) if spec.kind == "deployed" else timings[spec.kind](case, device)]
    return campaign.everything(case)


def of_language(spec: records.RunSpec) -> measured.Run:
    from quide.llm.checkpoints import Checkpoint
    from quide.llm.methods import LlmRecipe

    details = spec.details
    device = {4: "cpu", 128: "cuda", None: "cpu"}[details.get("calibration_questions")]
    form = "autoawq" if spec.model.endswith("-awq") else "transformers"
    case = llm_runs.LanguageCase(Checkpoint(spec.model, Path(), form, details["weights"]), spec.seed, device)
    if spec.kind == llm_runs.LATENCY:
        return llm_runs.timing(case, [LlmRecipe(**each) for each in details["recipes"]])
    recipe = LlmRecipe(**details["recipe"])
    if spec.kind == llm_runs.ACCURACY:
        return llm_runs.accuracy(case, recipe, details["shots"], details["limit"])
    return {llm_runs.NEXT_TOKEN: llm_runs.next_token, llm_runs.MEMORY: llm_runs.memory}[spec.kind](case, recipe)


def of_imagenet(spec: records.RunSpec) -> measured.Run:
    case, details = imagenet_runs.ImageNetCase(spec.model, spec.seed), spec.details
    case.__dict__["tested"] = Images(details["images"], details["images_sha256"])
    case.__dict__["calibrated_on"] = Images(details["calibration"], details["calibration_sha256"])
    if spec.kind == imagenet_runs.MIXED:
        return imagenet_runs.mixed(case, details["method"])
    if spec.kind == "kernel_latency":
        return kernels.timing(case, details["batch"], details["environment"]["threads"])
    of_kind = {imagenet_runs.ACCURACY: imagenet_runs.accuracy, imagenet_runs.QUANTIZERS: imagenet_runs.quantizers}
    return (of_kind | {"kernel_accuracy": kernels.accuracy})[spec.kind](case)


def test_every_committed_record_is_found_by_the_code_that_would_make_it(committed, monkeypatch):
    monkeypatch.setenv("QUIDE_IMAGENET", "")
    lost = []
    for record in committed:
        environment = record.spec.details.get("environment")
        monkeypatch.setattr(provenance, "environment", lambda device, known=environment: known)
        if record.key not in {run.spec.key for run in remade(record)}:
            lost.append(f"{record.spec.kind} of {record.spec.model}, {record.key}")
    assert len(committed) >= 267 and not lost


def test_the_status_counts_every_record_once(committed):
    table = campaign.status()
    kept = table[table.profile.isin({record.spec.profile for record in committed})]  # not what else was run here
    assert kept.fresh.sum() + kept.stale.sum() == len(committed)
    absent = table[table.absent > 0].set_index(["kind", "profile", "model", "dataset"]).absent
    assert absent["training", "paper", "resnet18", "cifar10"] == 3
    assert ("accuracy", "paper", "simplecnn", "mnist") not in absent.index


def test_without_records_everything_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    table = campaign.status()
    assert table.fresh.sum() == table.stale.sum() == 0
    assert table.absent.sum() == len(campaign.planned()) + 7  # kinds of ImageNet and of language models
    commands = {(row.kind, row.model): row.command for row in table.itertuples()}
    assert commands["training", "resnet18"].startswith("quide run exp2 --models resnet18 --profile ")
    assert commands["imagenet_mixed", "any"] == "quide run exp2_imagenet --profile paper"


def test_specs_status_and_staleness_load_no_torch():
    code = (
        "import sys\nfrom quide.experiments import campaign, recipes, records, select, staleness\n"
        "campaign.planned()\n[staleness.stale(record) for record in records.collect('training')]\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def test_a_case_is_timed_until_it_is_quiet_and_the_quietest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    monkeypatch.setattr(latency, "wait_for_quiet", lambda seconds: True)

    def timed(*signs: tuple[bool, float]) -> measured.Run:
        left = iter(signs)

        def compute() -> dict:
            noisy, aa_ratio = next(left)
            timings = {"32": {"median_ms": 1.0, "p10_ms": 1.0, "p90_ms": 1.1}}
            return {"latencies": timings, "noisy": noisy, "reasons": ["x"] * noisy, "aa_ratio": aa_ratio}

        return replace(runs.timing(runs.Case("simplecnn", "mnist", 0, "smoke")), compute=compute)

    first = campaign.retime(timed((True, 1.2), (True, 0.9), (True, 1.3), (False, 1.0)), tries=3)
    assert first.values["aa_ratio"] == 0.9 and [each["aa_off"] for each in first.values["tried"]] == pytest.approx(
        [0.2, 0.1, 0.3]
    )
    assert campaign.retime(timed((True, 1.15)), tries=1).values == first.values  # the quieter one stays
    quiet = campaign.retime(timed((True, 1.2), (False, 1.04), (False, 1.0)))
    assert quiet.values["aa_ratio"] == 1.04 and len(quiet.values["tried"]) == 2
    assert records.load(first.spec) == quiet


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What would be run: kind, seed, profile and activation site of each."""
    found: list[tuple] = []

    def result(run):
        site = run.spec.details.get("scheme", {}).get("activation_site")
        found.append((run.spec.kind, run.spec.seed, run.spec.profile, site))

    monkeypatch.setattr(measured.Run, "result", result)
    return found


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_the_embedded_profiles_run_nothing_of_networks_without_embedded_weights(profile):
    assert campaign.cases(["resnet18", "resnet20"], "cifar10", [0, 42], profile) == []
    assert len(campaign.cases(["simplecnn"], "cifar10", [0, 42], profile)) == 2


def test_each_seed_is_trained_swept_and_timed(asked):
    assert campaign.measure(campaign.cases(["resnet18"], "cifar10", [0, 42], "short")) == []
    kinds, swept = [(kind, seed) for kind, seed, _, _ in asked], ("training", "accuracy", "accuracy", "accuracy")
    assert kinds == [*((kind, 0) for kind in (*swept, "mixed_stages", "latency", "deployed")),
                     *((kind, 42) for kind in (*swept, "latency"))]  # fmt: skip


@pytest.mark.parametrize("profile", ["short", "paper"])
def test_a_published_network_is_swept_by_the_paper_s_protocol_and_timed_once(profile, asked):
    campaign.measure(campaign.cases(["resnet20"], "cifar10", [7, 42], profile))
    assert {name for _, _, name, _ in asked} == {"paper"}
    assert {(kind, seed) for kind, seed, _, _ in asked if kind != "accuracy"} == {("latency", 7), ("deployed", 7)}
    assert {(seed, site) for kind, seed, _, site in asked if kind == "accuracy"} == {
        (seed, site) for seed in (7, 42) for site in ("output", "relu", "input")
    }


@pytest.mark.parametrize(
    ("kind", "error", "line"),
    [
        ("accuracy", FileNotFoundError("put it there"), "ResNet-20 was not run: put it there."),
        ("deployed", ModuleNotFoundError("no onnx"), "Real 8-bit arithmetic was not timed: no onnx."),
    ],
)
def test_what_cannot_be_had_is_said_once_and_stops_nothing(kind, error, line, monkeypatch):
    done = []

    def result(run):
        if run.spec.kind == kind and run.spec.model == "resnet20":
            raise error
        done.append(run.spec.model)

    monkeypatch.setattr(measured.Run, "result", result)
    assert campaign.measure(campaign.cases(["resnet20", "resnet18"], "cifar10", [0, 42], "paper")) == [line]
    assert done.count("resnet18") == 7 + 5  # seed 0 alone is searched, and timed in integers


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="model must be"):
        campaign.cases(["vgg"], "cifar10", [0], "paper")
