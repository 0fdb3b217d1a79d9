"""Specs of the runs: what makes two runs the same, what makes a record stale, and what is refused before any work."""

from collections import Counter

import pytest

from quide import imagenet_runs, mixed, paths, ptq, recipes, records, runs


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("simplecnn", "imagenet", 0), "dataset"),
        (("alexnet", "mnist", 0), "model"),
        (("simplecnn", "mnist", -1), "seed"),
        (("simplecnn", "mnist", True), "seed"),
        (("simplecnn", "mnist", 0, "fast"), "profile"),
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


def test_an_unknown_selection_is_refused():
    with pytest.raises(ValueError, match="selection"):
        runs.accuracy(runs.Case("simplecnn", "mnist", 0), selection="median")


def test_known_computes_nothing_and_stale_tells_other_code(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    run = runs.accuracy(runs.Case("simplecnn", "mnist", 0, "smoke"))
    assert run.known() is None and not run.stale()
    records.save(records.Record(run.spec, {"accuracy": {}}, "0" * 16, run.data, {}, 1.0))
    assert run.stale()
    with pytest.warns(records.StaleRecordWarning, match="stale"):
        assert run.known().values == {"accuracy": {}}


def test_a_missing_embedded_checkpoint_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="profile paper"):
        runs.network(runs.Case("simplecnn", "mnist", 0, "quick"))


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


MAKERS = {"training": runs.training, "accuracy": runs.accuracy, "latency": runs.timing,
          "mixed_accuracy": mixed.accuracy, "mixed_latency": mixed.timing}  # fmt: skip


def test_no_committed_record_is_stale(monkeypatch):
    monkeypatch.delenv("QUIDE_RESULTS", raising=False)
    stale, seen = Counter(), 0
    for file in (paths.results() / "paper").glob("*/*.json"):
        record = records.read(file)
        spec = record.spec
        seen += 1
        if spec.dataset == imagenet_runs.DATASET:  # its images are not here, so that only the code can be compared
            code, data = imagenet_runs.code(spec.kind), None
        else:
            today = MAKERS[spec.kind](runs.Case(spec.model, spec.dataset, spec.seed, spec.profile))
            code, data = today.code, today.data
        if records.is_stale(record, code, data):
            stale[f"{spec.kind} of {spec.model} on {spec.dataset}"] += 1
    assert seen and not stale, "restore the code they were made by, or make them again"
