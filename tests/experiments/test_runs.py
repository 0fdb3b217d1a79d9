"""Specs of the runs: what makes two runs the same, what makes a record stale, and what is refused before any work."""

from dataclasses import replace

import pytest
import torch

from quide import ptq
from quide.data import datasets
from quide.experiments import inputs, profiles, recipes, records, runs
from quide.models import pretrained, registry, train


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("simplecnn", "imagenet", 0), "dataset"),
        (("alexnet", "mnist", 0), "model"),
        (("simplecnn", "mnist", -1), "seed"),
        (("simplecnn", "mnist", True), "seed"),
        (("simplecnn", "mnist", 0, "fast"), "profile"),
        (("resnet18", "mnist", 0), "model"),
        (("simplecnn", "mnist", 0, "short"), "profile short"),
    ],
)
def test_a_wrong_case_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        runs.Case(*arguments)


def test_the_embedded_profiles_take_their_weights_from_seed_0():
    assert runs.Case("simplecnn", "mnist", 7, "quick").training_seed == 0
    assert runs.Case("simplecnn", "mnist", 7, "paper").training_seed == 7


def test_a_spec_tells_apart_whatever_changes_the_result():
    case = runs.Case("simplecnn", "cifar10", 0)
    plain = runs.accuracy(case)
    others = [
        runs.accuracy(runs.Case("simplecnn", "cifar10", 1)),
        runs.accuracy(runs.Case("simplecnn", "cifar10", 0, "smoke")),
        runs.accuracy(case, bits=(8, 4)),
        runs.accuracy(case, scheme=ptq.Scheme(activation_site="relu")),
        runs.accuracy(case, calibration_size=128),
        runs.timing(case),
        runs.training(case),
    ]
    assert len({run.spec.key for run in [plain, *others]}) == len(others) + 1
    assert runs.accuracy(case, bits=[32, 16, 8, 4, 2]).spec == plain.spec


def test_the_short_schedule_is_the_paper_s_with_fewer_epochs():
    short, paper = (runs.Case("resnet18", "cifar10", 0, name).recipe for name in ("short", "paper"))
    assert paper == train.RESNET18
    assert short in [train.RESNET18.shortened(epochs) for epochs in profiles.SHORT_EPOCHS.values()]
    assert set(profiles.SHORT_EPOCHS.values()) < set(runs.SCHEDULES)


def test_nothing_of_the_short_schedule_is_taken_for_the_paper_s():
    short, paper = (runs.Case("resnet18", "cifar10", 0, name) for name in ("short", "paper"))
    for make in (runs.training, runs.accuracy, runs.timing):
        assert make(short).spec.key != make(paper).spec.key
        assert records.path_of(make(short).spec).parts[-3] == "short"
    assert inputs.checkpoint_file(short) != inputs.checkpoint_file(paper)
    assert inputs.published_checkpoint(short) != inputs.published_checkpoint(paper)


def test_weights_are_kept_under_the_name_that_published_checkpoints_have():
    assert inputs.published_checkpoint(runs.Case("simplecnn", "cifar10", 0, "paper")).exists()
    assert inputs.published_checkpoint(runs.Case("simplecnn", "mnist", 42, "paper")).exists()


def test_a_record_hangs_on_the_code_of_its_own_network_alone(monkeypatch):
    cases = [runs.Case(model, "cifar10", 0, "paper") for model in ("simplecnn", "resnet18")]
    makers = (runs.training, runs.accuracy, runs.timing)
    before = [[make(case).code for make in makers] for case in cases]
    monkeypatch.setitem(registry.BUILDERS, "resnet18", "SimpleCNN")
    after = [[make(case).code for make in makers] for case in cases]
    assert after[0] == before[0]
    assert all(new != old for new, old in zip(after[1], before[1], strict=True))


def test_published_weights_decide_the_key_and_no_seed_decides_them(monkeypatch):
    cases = [runs.Case("resnet20", "cifar10", seed, "paper") for seed in (0, 42)]
    assert all(case.published and case.training_seed is None for case in cases)
    assert runs.accuracy(cases[0]).spec.key != runs.accuracy(cases[1]).spec.key  # calibrated on other images
    before = runs.accuracy(cases[0]).data
    row = registry.row("resnet20", "cifar10")
    assert before.endswith(row.sha256)
    monkeypatch.setitem(registry._ROWS, ("resnet20", "cifar10"), replace(row, sha256="0" * 64))
    assert runs.accuracy(cases[0]).data != before


def test_a_published_network_sees_images_as_it_was_trained_on_them(monkeypatch):
    case = runs.Case("resnet20", "cifar10", 0, "paper")
    monkeypatch.setattr(datasets, "load", lambda *_: few_images(600))
    facts = pretrained.NETWORKS["resnet20"]
    inputs.test_images.cache_clear()
    try:
        tested = inputs.test_images(case)
    finally:
        inputs.test_images.cache_clear()
    assert (tested.mean, tested.std) == (facts.mean, facts.std)
    chosen = datasets.calibration_indices(600, runs.CALIBRATION_SIZE, 0)
    expected = datasets.normalize(few_images(600).images[chosen], facts.mean, facts.std)
    assert torch.equal(inputs.calibration_images(case), expected)


@pytest.mark.parametrize("selection", ["best", "last"])
def test_a_published_network_is_loaded_and_never_trained(selection, monkeypatch):
    case = runs.Case("resnet20", "cifar10", 0, "paper")
    monkeypatch.setattr(pretrained, "load", lambda name: name)
    with pytest.raises(ValueError, match="resnet20 is not trained here"):
        runs.training(case)
    if selection == "best":
        assert inputs.network(case, selection) == "resnet20"
    else:
        with pytest.raises(ValueError, match="selection must be 'best' of a published network"):
            inputs.network(case, selection)


def test_a_published_network_has_no_short_schedule():
    with pytest.raises(ValueError, match="profile short is for resnet18"):
        runs.Case("resnet20", "cifar10", 0, "short")


def few_images(count: int) -> datasets.ImageSet:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    facts = datasets.info("cifar10")
    return datasets.ImageSet(pixels, torch.arange(count) % facts.num_classes, facts.mean, facts.std)


@pytest.mark.slow
def test_an_interrupted_short_training_goes_on_from_its_last_epoch(tmp_path, monkeypatch):
    case, run_epoch = runs.Case("resnet18", "cifar10", 0, "short"), train._epoch
    monkeypatch.setattr(datasets, "load", lambda _, split: few_images({"train": 12, "test": 4}[split]))
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "whole"))
    whole = inputs.fit(case, "cpu", progress=False)
    assert len(whole.history) == case.size.epochs

    def mortal(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return run_epoch(*arguments)

    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "interrupted"))
    monkeypatch.setattr(train, "_epoch", mortal)
    with pytest.raises(KeyboardInterrupt):
        inputs.fit(case, "cpu", progress=False)
    epochs = []
    monkeypatch.setattr(train, "_epoch", lambda *arguments: epochs.append(arguments[-1]) or run_epoch(*arguments))
    resumed = inputs.fit(case, "cpu", progress=False)
    assert epochs == list(range(2, case.size.epochs + 1))
    for name, weights in whole.last.items():
        assert torch.equal(resumed.last[name], weights), name


def test_an_unknown_selection_is_refused():
    with pytest.raises(ValueError, match="selection"):
        runs.accuracy(runs.Case("simplecnn", "mnist", 0), selection="median")


def test_known_computes_nothing_and_stale_tells_other_code(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    run = runs.accuracy(runs.Case("simplecnn", "mnist", 0, "smoke"))
    assert run.known() is None
    records.save(records.Record(run.spec, {"accuracy": {}, "correct": {}, "images": 1}, "0" * 16, run.data, {}, 1.0))
    assert records.is_stale(records.load(run.spec), run.code, run.data)
    with pytest.warns(records.StaleRecordWarning, match="stale"):
        assert run.known().values == {"accuracy": {}, "correct": {}, "images": 1}


def test_a_missing_embedded_checkpoint_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="profile paper"):
        inputs.network(runs.Case("simplecnn", "mnist", 0, "quick"))


def test_the_grid_has_the_paper_scheme_once_and_distinct_recipes():
    grid = recipes.grid()
    assert len({recipe.name for recipe in grid}) == len(grid)
    keys = {recipe.run(runs.Case("simplecnn", "cifar10", 0, "paper")).spec.key for recipe in grid}
    assert len(keys) == len(grid)
    assert [recipe.scheme for recipe in grid if recipe.axis == "grid"].count(ptq.PAPER) == 1
    for recipe in grid:
        if recipe.axis not in ("grid", "calibration size", "model selection"):
            changed = [name for name, value in vars(recipe.scheme).items() if value != getattr(ptq.PAPER, name)]
            assert len(changed) == 1, recipe.name
