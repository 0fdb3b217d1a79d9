"""Searches against brute force, their documented edge cases, and fan-out to real worker processes."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import accuracy_and_compression, dies_once, gated_index, slow_first
from scipy.stats import chisquare

from quide import search
from quide.search import baselines, evolution, scoring

CHOICES = (16, 8, 4, 2)
SEEDS = range(30)
UNLIKELY = 1e-3  # smallest p-value that a seeded frequency test lets pass


SEARCHES = {
    "genetic": lambda fitness, **options: search.genetic(fitness, 4, CHOICES, seed=3, **options),
    "exhaustive": lambda fitness, **options: search.exhaustive(fitness, 4, CHOICES, **options),
    "random_search": lambda fitness, **options: search.random_search(fitness, 4, CHOICES, budget=60, seed=3, **options),
    "greedy": lambda fitness, **options: search.greedy(fitness, 4, CHOICES, **options),
}


@st.composite
def landscapes(draw):
    """A small space with a random fitness (zeros and ties among it): ``(table, num_layers, choices)``."""
    choices = draw(st.lists(st.sampled_from((32, 16, 8, 6, 4, 2)), min_size=1, max_size=4, unique=True))
    num_layers = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.choice((0.0, 0.5, 1.0, *rng.random(4)), size=len(choices) ** num_layers)
    return dict(zip(itertools.product(choices, repeat=num_layers), scores.tolist(), strict=True)), num_layers, choices


@st.composite
def settings_of_genetic(draw):
    population = draw(st.integers(1, 12))
    return {
        "population": population,
        "generations": draw(st.integers(1, 8)),
        "mutation": draw(st.floats(0, 1)),
        "elite": draw(st.integers(0, population)),
        "seed": draw(st.integers(0, 2**64)),
    }


# --- genetic ---------------------------------------------------------------------------------------------------------


@given(landscapes(), settings_of_genetic())
@settings(deadline=None, max_examples=150)
def test_genetic_keeps_its_promises_on_any_landscape(landscape, options):
    table, num_layers, choices = landscape
    asked = []
    result = search.genetic(lambda widths: asked.append(widths) or table[widths], num_layers, choices, **options)

    assert asked == list(result.evaluated), "each distinct configuration is evaluated once, in the order recorded"
    assert result.evaluated == {widths: table[widths] for widths in asked}
    assert result.best in table and result.best_fitness == table[result.best] == max(result.evaluated.values())
    bred = options["generations"] * (options["population"] - options["elite"])
    assert result.evaluations <= min(len(table), options["population"] + bred)
    assert result.calls == options["population"] * (options["generations"] + 1)
    assert [row["round"] for row in result.history] == list(range(1, options["generations"] + 2))
    assert result.history[-1]["evaluations"] == result.evaluations
    assert result.history[-1]["best_so_far"] == result.best_fitness == result.best_so_far[-1]
    assert result.best_so_far[result.evaluations_to_best - 1] == result.best_fitness
    assert (result.best_so_far[: result.evaluations_to_best - 1] < result.best_fitness).all()
    if options["elite"]:
        best = [row["best"] for row in result.history]
        assert best == sorted(best), "elitism never loses the best"
        assert table[result.best_of_final_population] == result.best_fitness


@given(landscapes(), settings_of_genetic())
@settings(deadline=None, max_examples=30)
def test_genetic_is_decided_by_its_seed_alone(landscape, options):
    table, num_layers, choices = landscape
    first = search.genetic(table.__getitem__, num_layers, choices, **options)
    np.random.seed(1)
    second = search.genetic(table.__getitem__, num_layers, choices, **options)
    assert first == second and list(first.evaluated) == list(second.evaluated)


def test_different_seeds_search_differently():
    assert len({tuple(search.genetic(gated_index, 4, seed=seed).evaluated) for seed in SEEDS}) == len(SEEDS)


def test_genetic_golden_run():
    """Pins the sequence of draws; numpy may change ``Generator`` streams between feature releases, and then this."""
    result = search.genetic(gated_index, 4)
    assert list(result.evaluated)[:4] == [(2, 4, 4, 8), (8, 16, 16, 16), (16, 2, 4, 2), (4, 4, 2, 4)]
    assert (result.best, result.evaluations, result.evaluations_to_best) == ((8, 8, 4, 8), 52, 34)
    assert result.best_fitness == pytest.approx(1.0677886536971244, rel=1e-12)
    assert [row["evaluations"] for row in result.history][::5] == [17, 39, 46, 48, 49, 51, 52]


def test_genetic_finds_the_true_best_of_256_far_more_often_than_chance():
    truth = search.exhaustive(gated_index, 4)
    runs = [search.genetic(gated_index, 4, seed=seed) for seed in SEEDS]
    budgets = [run.evaluations for run in runs]
    blind = [search.random_search(gated_index, 4, budget=n, seed=seed) for seed, n in zip(SEEDS, budgets, strict=True)]
    hits = sum(run.best == truth.best for run in runs)
    assert truth.evaluations == 256 and max(budgets) < 128
    assert hits >= 0.9 * len(runs)
    assert sum(run.best == truth.best for run in blind) < hits / 2


def test_without_elite_the_best_ever_scored_is_kept_though_the_population_lost_it():
    runs = [search.genetic(gated_index, 4, population=4, generations=6, elite=0, seed=seed) for seed in SEEDS]
    lost = [run for run in runs if run.evaluated[run.best_of_final_population] < run.best_fitness]
    assert lost and all(run.best_fitness == max(run.evaluated.values()) for run in runs)


def test_of_equals_the_one_that_came_first_leads_every_generation():
    result = search.genetic(lambda widths: 1.0, 4, elite=2)
    assert result.best == next(iter(result.evaluated)) == result.best_of_final_population
    assert {row["best_configuration"] for row in result.history} == {result.best}


def test_the_last_children_are_scored():
    found = [search.genetic(gated_index, 4, generations=1, seed=seed) for seed in SEEDS]
    assert any(run.history[1]["evaluations"] > run.history[0]["evaluations"] for run in found)
    assert any(run.history[1]["best"] > run.history[0]["best"] for run in found)


def test_all_zero_fitness_draws_parents_uniformly_and_returns_the_first():
    result = search.genetic(lambda widths: 0.0, 4)
    assert result.best == next(iter(result.evaluated)) and result.best_fitness == 0
    assert result.evaluations > 20, "it keeps searching"
    wheel = evolution._wheel([0.0] * 8)
    counts = np.bincount(evolution._spin(wheel, np.random.default_rng(0), 8_000), minlength=8)
    assert chisquare(counts).pvalue > UNLIKELY


def test_roulette_is_proportional_to_fitness():
    scores = np.array([0.0, 5.0, 1.0, 0.0, 2.5, 0.5, 1.0, 0.0])
    counts = np.bincount(evolution._spin(evolution._wheel(scores), np.random.default_rng(0), 100_000), minlength=8)
    drawable = scores > 0
    assert not counts[~drawable].any()
    assert chisquare(counts[drawable], 100_000 * scores[drawable] / scores.sum()).pvalue > UNLIKELY
    assert chisquare(counts[drawable]).pvalue < UNLIKELY, "the test can tell a proportional draw from a uniform one"


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e308])
def test_roulette_survives_extreme_fitness(scale):
    counts = np.bincount(evolution._spin(evolution._wheel([scale] * 4), np.random.default_rng(0), 4_000), minlength=4)
    assert chisquare(counts).pvalue > UNLIKELY


def test_crossover_takes_each_layer_from_either_parent_with_equal_chance():
    rng = np.random.default_rng(0)
    children = np.array([evolution._crossover((1, 2, 3), (4, 5, 6), rng) for _ in range(4_000)])
    assert all(set(column) == {low, low + 3} for column, low in zip(children.T, (1, 2, 3), strict=True))
    patterns = np.bincount((children > 3) @ (1, 2, 4), minlength=8)
    assert chisquare(patterns).pvalue > UNLIKELY


@pytest.mark.parametrize("width", [1, 2, 4])
def test_mutation_changes_exactly_its_width_to_any_other_choice(width):
    rng = np.random.default_rng(0)
    before = (16, 8, 4, 2)
    after = np.array([evolution._mutate(before, rng, CHOICES, width) for _ in range(3_000)])
    changed = after != before
    assert (changed.sum(axis=1) == width).all()
    assert chisquare(changed.sum(axis=0)).pvalue > UNLIKELY
    for layer in range(4):
        values, counts = np.unique(after[changed[:, layer], layer], return_counts=True)
        assert set(values) == set(CHOICES) - {before[layer]} and chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("mutation", [0.0, 0.15, 1.0])
def test_mutation_happens_with_its_probability(mutation):
    rng = np.random.default_rng(0)
    members = [(16, 16, 16)] * 3
    children = [evolution._child(members, evolution._wheel([1.0] * 3), rng, CHOICES, mutation, 1) for _ in range(5_000)]
    mutants = sum(child != members[0] for child in children)
    assert abs(mutants - 5_000 * mutation) <= 4 * math.sqrt(5_000 * mutation * (1 - mutation))


def test_without_mutation_no_width_appears_that_its_layer_did_not_start_with():
    run = search.genetic(sum, 6, (32, 16, 8, 4, 2), population=3, generations=20, mutation=0, elite=1)
    start = list(run.evaluated)[: run.history[0]["evaluations"]]
    assert run.evaluations > len(start)
    for layer, widths in enumerate(zip(*run.evaluated, strict=True)):
        assert set(widths) == {configuration[layer] for configuration in start}


def test_a_single_choice_leaves_a_single_configuration():
    result = search.genetic(gated_index, 3, (8,), mutation=1.0)
    assert result.evaluated == {(8, 8, 8): gated_index((8, 8, 8))}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, got 0"),
        ({"num_layers": 2.5}, "num_layers must be a whole number"),
        ({"choices": ()}, "choices must be one or more distinct"),
        ({"choices": (8, 4, 8)}, "choices must be one or more distinct"),
        ({"choices": (8, 4.0)}, "choices must be whole numbers, got 4.0"),
        ({"population": 0, "elite": 0}, "population must be a whole number of at least 1"),
        ({"generations": 0}, "generations must be a whole number of at least 1"),
        ({"elite": 21}, "elite must be a whole number in 0..20, got 21"),
        ({"elite": -1}, "elite must be a whole number in 0..20"),
        ({"mutation": 1.01}, "mutation must be a probability"),
        ({"mutation": -0.1}, "mutation must be a probability"),
        ({"mutation": math.nan}, "mutation must be a probability"),
        ({"mutation_width": 5}, "mutation_width must be a whole number in 1..4"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": None}, "seed must be a whole number"),
    ],
)
def test_genetic_names_the_bad_argument(options, named):
    with pytest.raises(ValueError, match=named):
        search.genetic(gated_index, **{"num_layers": 4, **options})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", SEARCHES)
def test_fitness_that_is_not_finite_is_refused_with_its_configuration(name, value):
    with pytest.raises(ValueError, match=r"finite.*\(\d+, \d+, \d+, \d+\)"):
        SEARCHES[name](lambda widths: value)


def test_negative_fitness_is_refused_only_where_a_roulette_needs_it():
    bad = (8, 8, 4, 8)

    def loss(widths):
        return -1.0 if widths == bad else gated_index(widths)

    with pytest.raises(ValueError, match=r"at least 0 .* got -1.0 for configuration \(8, 8, 4, 8\)"):
        search.genetic(loss, 4)
    assert search.exhaustive(loss, 4).evaluated[bad] == -1.0


def test_an_error_inside_fitness_says_which_configuration():
    with pytest.raises(ZeroDivisionError) as caught:
        search.exhaustive(lambda widths: 1 / (sum(widths) - 16), 2, (16, 8))
    assert caught.value.__notes__ == ["while evaluating configuration (8, 8)"]


def test_numpy_scalars_are_accepted_and_plain_numbers_come_out():
    result = search.genetic(lambda widths: np.float32(widths[0]), np.int64(2), np.array([8, 4]), population=np.int32(6))
    assert result.best == (8, result.best[1]) and {type(width) for width in result.best} == {int}
    assert type(result.best_fitness) is float


# --- the others ------------------------------------------------------------------------------------------------------


def test_exhaustive_sees_everything_in_order_and_the_first_of_equals_wins():
    result = search.exhaustive(lambda widths: float(max(widths) == 8), 3, (4, 8))
    assert list(result.evaluated) == list(itertools.product((4, 8), repeat=3))
    assert result.best == (4, 4, 8) and result.calls == result.evaluations == 8


def test_exhaustive_history_follows_the_batches(monkeypatch):
    monkeypatch.setattr(baselines, "BATCH", 100)
    result = search.exhaustive(gated_index, 4)
    scores = list(result.evaluated.values())
    assert [row["evaluations"] for row in result.history] == [100, 200, 256]
    assert [row["best"] for row in result.history] == [max(scores[:100]), max(scores[100:200]), max(scores[200:])]
    assert result.history[1]["mean"] == pytest.approx(np.mean(scores[100:200]))


def test_exhaustive_refuses_what_it_cannot_finish():
    with pytest.raises(ValueError, match=r"4,398,046,511,104 configurations, more than limit=65,536; raise limit"):
        search.exhaustive(gated_index, 21)
    with pytest.raises(ValueError, match="limit=15"):
        search.exhaustive(gated_index, 2, limit=15)
    assert search.exhaustive(gated_index, 2, limit=16).evaluations == 16


@pytest.mark.parametrize("budget", [1, 20, 200, 256, 1000])
def test_random_search_never_repeats_and_stays_within_budget(budget):
    result = search.random_search(gated_index, 4, budget=budget, seed=5)
    assert result.evaluations == result.calls == min(budget, 256)
    assert set(result.evaluated) <= set(itertools.product(CHOICES, repeat=4))
    assert result == search.random_search(gated_index, 4, budget=budget, seed=5)


@pytest.mark.parametrize("budget", [2, 6])
def test_random_search_draws_every_configuration_equally_often(budget):
    """Both ways of drawing: rejecting repeats in a sparse draw, a permutation in a dense one."""
    space = list(itertools.product((8, 4, 2), repeat=2))
    runs = [list(search.random_search(gated_index, 2, (8, 4, 2), budget, seed).evaluated) for seed in range(1_800)]
    for position in (0, budget - 1):
        counts = [sum(run[position] == each for run in runs) for each in space]
        assert chisquare(counts).pvalue > UNLIKELY


def test_random_search_default_budget_is_the_most_that_genetic_can_use():
    assert search.random_search(sum, 21).evaluations == 470 == 20 + 30 * (20 - 5)


def test_greedy_takes_the_best_step_and_stops_without_gain():
    # From 8-8: lowering the second layer is better (3 > 2); then the first (5); then only a tie is left.
    table = {(8, 8): 1, (4, 8): 2, (8, 4): 3, (4, 4): 5, (8, 2): 4, (4, 2): 5, (2, 4): 5, (2, 8): 9, (2, 2): 9}
    result = search.greedy(table.__getitem__, 2, (2, 8, 4))
    assert (result.best, result.best_fitness) == ((4, 4), 5)
    assert list(result.evaluated) == [(8, 8), (4, 8), (8, 4), (4, 4), (8, 2), (2, 4), (4, 2)]
    assert [row["best_configuration"] for row in result.history] == [(8, 8), (8, 4), (4, 4), (2, 4)]


def test_greedy_goes_to_the_bottom_and_not_beyond():
    result = search.greedy(lambda widths: -sum(widths), 3, (8, 4, 2))
    assert result.best == (2, 2, 2) and result.evaluations <= 1 + 3**2 * 2
    assert search.greedy(lambda widths: 0.0, 3).evaluations == 4


@given(landscapes())
@settings(deadline=None, max_examples=60)
def test_greedy_ends_where_no_single_step_down_is_better(landscape):
    table, num_layers, choices = landscape
    result = search.greedy(table.__getitem__, num_layers, choices)
    ladder = sorted(choices, reverse=True)
    assert result.best_fitness >= table[(ladder[0],) * num_layers]
    assert result.evaluations <= 1 + num_layers**2 * (len(choices) - 1)
    for layer, width in enumerate(result.best):
        for below in ladder[ladder.index(width) + 1 :][:1]:
            assert table[(*result.best[:layer], below, *result.best[layer + 1 :])] <= result.best_fitness


# --- frontier --------------------------------------------------------------------------------------------------------


def dominated(point, points):
    return any(all(o >= p for o, p in zip(other, point, strict=True)) and other != point for other in points)


@given(st.integers(1, 3).flatmap(lambda m: st.lists(st.tuples(*[st.integers(-2, 2)] * m), min_size=1, max_size=30)))
@settings(deadline=None)
def test_pareto_front_is_the_definition(points):
    assert search.pareto_front(points).tolist() == [not dominated(point, points) for point in points]


def test_pareto_front_agrees_with_pymoo_on_many_points():
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    points = np.random.default_rng(0).normal(size=(3_000, 3))
    points[:, 2] -= points[:, 0]
    front = NonDominatedSorting().do(-points, only_non_dominated_front=True)
    assert 10 < len(front) < 3_000
    assert np.flatnonzero(search.pareto_front(points)).tolist() == sorted(front)


@pytest.mark.parametrize("points", [[1.0, 2.0], [[1.0, math.nan]], [[1.0, math.inf]], [[]], 3.0])
def test_pareto_front_refuses_what_is_not_a_table_of_numbers(points):
    with pytest.raises(ValueError, match="points must be finite"):
        search.pareto_front(points)


def test_pareto_front_of_nothing_is_empty():
    assert search.pareto_front(np.empty((0, 2))).shape == (0,)


def test_nsga2_frontier_is_exact_on_what_it_saw_and_close_to_the_truth():
    found = search.nsga2(accuracy_and_compression, 5, population=40, generations=20)
    space = list(itertools.product(CHOICES, repeat=5))
    truth = {space[i] for i in np.flatnonzero(search.pareto_front([accuracy_and_compression(each) for each in space]))}
    seen = list(found.evaluated)
    best_seen = search.pareto_front([accuracy_and_compression(each) for each in seen])
    assert set(found.front) == {each for each, keep in zip(seen, best_seen, strict=True) if keep}
    assert all(found.front[each] == accuracy_and_compression(each) for each in found.front)
    assert list(found.front.values()) == sorted(found.front.values(), reverse=True)
    assert found.evaluations <= 800 < len(space)
    assert len(truth & set(found.front)) >= 0.8 * len(truth)


def test_nsga2_is_decided_by_its_seed_alone():
    first = search.nsga2(accuracy_and_compression, 8, population=12, generations=6, seed=4)
    np.random.seed(1)
    second = search.nsga2(accuracy_and_compression, 8, population=12, generations=6, seed=4)
    other = search.nsga2(accuracy_and_compression, 8, population=12, generations=6, seed=5)
    assert list(first.evaluated.items()) == list(second.evaluated.items()) != list(other.evaluated.items())


@pytest.mark.parametrize(("num_layers", "choices"), [(1, (8, 4)), (3, (8,)), (2, (2, 16, 4))])
def test_nsga2_exhausts_a_space_smaller_than_its_population(num_layers, choices):
    found = search.nsga2(accuracy_and_compression, num_layers, choices)
    assert set(found.evaluated) == set(itertools.product(choices, repeat=num_layers))


@pytest.mark.parametrize(
    "objectives",
    [
        lambda widths: (1.0, math.nan),
        lambda widths: (),
        lambda widths: 1.0,
        lambda widths: (1.0,) * (1 + (sum(widths) > 20)),
    ],
)
def test_nsga2_refuses_objectives_that_are_not_a_fixed_list_of_numbers(objectives):
    with pytest.raises(ValueError, match="objectives must"):
        search.nsga2(objectives, 3)


def test_nsga2_without_pymoo_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(ImportError, match=r"pip install 'quide\[search\]'"):
        search.nsga2(accuracy_and_compression, 3)


# --- size and fan-out ------------------------------------------------------------------------------------------------


def test_a_space_of_4_to_the_21_is_searched_within_the_stated_budget():
    assert search.genetic(gated_index, 21).evaluations <= 470
    assert search.greedy(gated_index, 21).evaluations <= 1 + 21**2 * 3
    assert search.random_search(gated_index, 21, budget=500).evaluations == 500
    assert search.nsga2(accuracy_and_compression, 21, population=40, generations=30).evaluations <= 1200


def test_a_space_beyond_any_integer_type_is_searched_too():
    assert search.genetic(gated_index, 200).evaluations <= 470
    assert search.random_search(gated_index, 200, budget=50).evaluations == 50


def same(one, other):
    return one == other and list(one.evaluated) == list(other.evaluated)


@pytest.mark.parametrize("name", SEARCHES)
def test_completion_order_does_not_matter(name):
    serial = SEARCHES[name](gated_index)
    order = {widths: index for index, widths in enumerate(serial.evaluated)}
    with ThreadPoolExecutor(8) as executor:
        assert same(SEARCHES[name](functools.partial(slow_first, order), executor=executor), serial)


def test_configurations_of_a_generation_are_evaluated_side_by_side():
    meeting = threading.Barrier(4, timeout=30)

    def waits_for_three_others(widths):
        meeting.wait()
        return 1.0

    with ThreadPoolExecutor(4) as executor:
        result = search.random_search(waits_for_three_others, 4, budget=8, executor=executor)
    assert result.evaluations == 8


def test_an_error_cancels_what_has_not_started():
    started = []

    def fails(widths):
        started.append(widths)
        raise ArithmeticError("no")

    with ThreadPoolExecutor(1) as executor, pytest.raises(ArithmeticError) as caught:
        search.exhaustive(fails, 4, executor=executor)
    assert len(started) < 200 and "(16, 16, 16, 16)" in caught.value.__notes__[0]


def process_pool():
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_process_pool_gives_the_serial_result():
    with process_pool() as executor:
        assert same(SEARCHES["genetic"](gated_index, executor=executor), SEARCHES["genetic"](gated_index))
        found = search.nsga2(accuracy_and_compression, 4, generations=3, executor=executor)
    assert same(found, search.nsga2(accuracy_and_compression, 4, generations=3))


def test_process_pool_that_loses_a_worker_stops_the_search(tmp_path):
    fatal = next(iter(SEARCHES["genetic"](gated_index).evaluated))
    with process_pool() as executor, pytest.raises(BrokenProcessPool) as caught:
        SEARCHES["genetic"](functools.partial(dies_once, str(tmp_path / "pid"), fatal), executor=executor)
    assert "\n" not in str(caught.value) and "fewer workers" in str(caught.value)


def test_a_worker_that_dies_late_costs_none_of_what_was_evaluated(tmp_path):
    everything = list(itertools.product(CHOICES, repeat=4))
    fitness = functools.partial(dies_once, str(tmp_path / "pid"), everything[200])
    with process_pool() as executor, pytest.raises(BrokenProcessPool) as caught:
        search.exhaustive(fitness, 4, executor=executor)
    known = caught.value.evaluated
    assert len(known) >= 190 and everything[200] not in known
    assert all(value == gated_index(widths) for widths, value in known.items())
    with process_pool() as executor, pytest.raises(BrokenProcessPool, match="keeps the 0 values") as caught:
        executor.submit(os._exit, 9).exception()  # the pool is lost before the search begins
        search.exhaustive(gated_index, 1, (8,), executor=executor)
    assert caught.value.__notes__ == ["while evaluating one of (8,)"] and caught.value.evaluated == {}


def leaves_python(widths):
    return sys.exit(0) if widths == (4, 4) else gated_index(widths)


def test_a_fitness_that_leaves_python_in_a_worker_does_not_end_the_caller():
    with process_pool() as executor, pytest.raises(BrokenExecutor) as caught:
        search.exhaustive(leaves_python, 2, executor=executor)
    assert caught.value.evaluated and (4, 4) not in caught.value.evaluated


def test_a_fitness_that_no_process_can_be_sent_is_said_to_be_one():
    with process_pool() as executor, pytest.raises(Exception, match="pickle") as caught:
        search.genetic(lambda widths: 1.0, 2, executor=executor)
    assert "module" in caught.value.__notes__[0] and not caught.value.evaluated


class ClosedClient:
    """An executor as Dask's, whose client closed just after it was asked: nothing comes any more."""

    _client = SimpleNamespace(status="closed")

    def submit(self, fitness, widths):
        future = Future()
        if len(widths) != widths.count(8):
            return future
        future.set_result(fitness(widths))
        return future


def test_a_client_that_closed_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(scoring, "PATIENCE", 0.01)
    with pytest.raises(BrokenExecutor) as caught:
        search.exhaustive(gated_index, 2, (8, 4), executor=ClosedClient())
    assert caught.value.evaluated == {(8, 8): gated_index((8, 8))}


class LostWorkers(ClosedClient):
    """The same, whose workers are gone once it was asked, as where each dies while Dask still starts it."""

    def __init__(self, *there):
        found = itertools.chain(there, itertools.repeat({}))
        self._client = SimpleNamespace(status="running", nthreads=lambda: next(found))


@pytest.mark.parametrize("there", [({"one": 1},), ({}, {"one": 1})], ids=["before", "late"])
def test_workers_that_do_not_come_back_are_not_waited_for(monkeypatch, there):
    monkeypatch.setattr(scoring, "PATIENCE", 0.01)
    monkeypatch.setattr(scoring, "ALONE", 0.05)
    with pytest.raises(BrokenExecutor) as caught:
        search.exhaustive(gated_index, 2, (8, 4), executor=LostWorkers(*there))
    assert caught.value.evaluated == {(8, 8): gated_index((8, 8))}


@pytest.mark.parametrize("name", SEARCHES)
def test_an_executor_that_is_shut_down_is_said_to_be(name):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ValueError, match="executor") as caught:
        SEARCHES[name](gated_index, executor=executor)
    assert caught.value.evaluated == {}


def test_an_error_of_the_fitness_keeps_what_was_evaluated():
    table = {widths: gated_index(widths) for widths in itertools.product(CHOICES, repeat=2)}
    del table[8, 4]
    with pytest.raises(KeyError) as caught:
        search.exhaustive(table.__getitem__, 2)
    assert list(caught.value.evaluated) == list(itertools.product(CHOICES, repeat=2))[:6]


def test_fitness_near_the_largest_float_is_searched_as_any_other():
    scale = 1e308

    def huge(widths):
        return scale * (8 / sum(widths))

    result = search.genetic(huge, 4, CHOICES)
    small = search.genetic(lambda widths: huge(widths) / scale, 4, CHOICES)
    assert result.best == small.best and list(result.evaluated) == list(small.evaluated)
    assert all(row["mean"] <= row["best"] < math.inf for row in result.history)


@pytest.fixture(scope="module")
def dask_client(tmp_path_factory):
    import dask
    from distributed import Client, LocalCluster

    # On a busy machine a new worker can need longer than the 15 s after which a cluster gives a lost one up.
    patience = {"distributed.deploy.lost-worker-timeout": "180s", "distributed.comm.timeouts.connect": "180s"}
    with (
        dask.config.set(patience),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None,
            local_directory=tmp_path_factory.mktemp("dask"),
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


@pytest.mark.slow
def test_two_dask_workers_give_the_serial_result(dask_client):
    workers = process_ids(dask_client.cluster)
    assert len(workers) == 2 and os.getpid() not in workers
    executor = dask_client.get_executor()
    for name in ("genetic", "random_search"):
        assert same(SEARCHES[name](gated_index, executor=executor), SEARCHES[name](gated_index))


@pytest.mark.slow
def test_a_dask_worker_killed_mid_run_changes_nothing(dask_client, tmp_path):
    serial = SEARCHES["genetic"](gated_index)
    fatal = list(serial.evaluated)[serial.history[2]["evaluations"]]  # first asked for in the fourth generation
    before = process_ids(dask_client.cluster)
    fitness = functools.partial(dies_once, str(tmp_path / "pid"), fatal)
    assert same(SEARCHES["genetic"](fitness, executor=dask_client.get_executor()), serial)
    killed = int((tmp_path / "pid").read_text())
    assert killed in before and len(before) == 2
    deadline = time.monotonic() + 180
    while len(process_ids(dask_client.cluster) - {killed}) < 2:
        assert time.monotonic() < deadline, "the lost worker was not replaced"
        time.sleep(0.1)


def process_ids(cluster):
    """Of the workers that run now; asked of their nannies, since a worker that has just died cannot answer."""
    return {nanny.pid for nanny in cluster.workers.values()} - {None}


def test_progress_shows_the_evaluations_done_of_the_most_there_can_be(capsys):
    search.random_search(gated_index, 4, budget=7, progress=True)
    assert "7/7" in capsys.readouterr().err
    search.genetic(gated_index, 21, progress=True)
    assert "/470" in capsys.readouterr().err
    search.random_search(gated_index, 4, budget=7)
    assert capsys.readouterr().err == ""


def test_importing_search_loads_neither_torch_nor_the_optional_extra():
    code = "import sys, quide.search; print({'torch', 'pymoo', 'pandas', 'distributed'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: search.genetic(None, 3), "fitness"),
        (lambda: search.genetic(sum, 3, None), "choices"),
        (lambda: search.genetic(sum, 3, 8), "choices"),
        (lambda: search.genetic(sum, 3, executor=4), "executor"),
        (lambda: search.genetic(sum, 3, mutation="a"), "mutation"),
        (lambda: search.genetic(lambda widths: None, 3), "fitness"),
        (lambda: search.genetic(lambda widths: [1.0], 3), "fitness"),
        (lambda: search.genetic(lambda widths: 1j, 3), "fitness"),
        (lambda: search.nsga2(lambda widths: {"a": 1}, 3), "objectives"),
        (lambda: search.nsga2(lambda widths: "ab", 3), "objectives"),
    ],
)
def test_an_argument_of_another_kind_is_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        call()
