"""AIQ's objective, to the printed digits, and its searches on tables small enough to know the answer of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from quide.search import aiq

# Intensity and accuracy of the authors' networks: full precision, uniform 8 and 4 bits, what their search found.
THEIRS = {"32": (29.84939, 0.9192), "8": (42.30288, 0.9196), "4": (45.46424, 0.8994), "greedy": (45.24663, 0.9102)}


def scores(objective: aiq.AiqObjective) -> dict[str, float]:
    return {name: objective(*facts, THEIRS["32"][1]) for name, facts in THEIRS.items()}


def test_the_printed_objective_prefers_uniform_4_bits_and_the_authors_program_the_searched_network():
    printed, authors = scores(aiq.PRINTED), scores(aiq.AUTHORS)
    assert printed["4"] == pytest.approx(40.720, abs=5e-4) and printed["greedy"] == pytest.approx(40.632, abs=5e-4)
    assert authors["greedy"] == pytest.approx(0.6697, abs=5e-5) and authors["4"] == pytest.approx(0.6622, abs=5e-5)
    assert max(printed, key=printed.get) == "4" and max(authors, key=authors.get) == "greedy"
    half = scores(aiq.AiqObjective(0.5, 60.0, 10.0, 0.895))
    assert max(half, key=half.get) == "8"


def test_below_the_floor_nothing_is_worth_it_and_a_gain_of_accuracy_is_no_merit():
    assert aiq.AUTHORS(1000.0, 0.8949, 0.92) < aiq.AUTHORS(1.0, 0.8951, 0.92)
    assert aiq.PRINTED(10.0, 0.95, 0.92) == aiq.PRINTED(10.0, 0.92, 0.92)


def additive(gains):
    """Each layer's width has a worth of its own, so that every sensible search finds the best."""
    return lambda bits: sum(gains[layer][width] for layer, width in enumerate(bits))


GAINS = [{32: 0.0, 8: 1.0, 4: 0.5}, {32: 0.0, 8: 0.2, 4: 2.0}, {32: 0.0, 8: -1.0, 4: -2.0}]


@pytest.mark.parametrize("search", [aiq.narrowing, lambda *a, **o: aiq.narrowing(*a, revisit=True, **o)])
def test_greedy_takes_the_best_move_first_and_leaves_what_gains_nothing(search):
    found = search(additive(GAINS), 3)
    assert found.best == (8, 4, 32) and found.best_fitness == 3.0
    assert [row["best_configuration"] for row in found.history[:3]] == [(32, 32, 32), (32, 4, 32), (8, 4, 32)]


def test_greedy_stops_after_its_steps():
    assert aiq.narrowing(additive(GAINS), 3, steps=1).best == (32, 4, 32)


def test_revisiting_undoes_an_early_choice():
    table = {
        (32, 32): 0.0,
        (8, 32): 2.0,
        (4, 32): 1.0,
        (32, 8): 0.5,
        (32, 4): 0.5,
        (8, 8): 2.5,
        (8, 4): 2.4,
        (4, 8): 5.0,
        (4, 4): 0.0,
    }
    assert aiq.narrowing(table.__getitem__, 2).best == (8, 8)
    assert aiq.narrowing(table.__getitem__, 2, revisit=True).best == (4, 8)


@pytest.mark.parametrize("order", [None, [2, 0, 1], [1, 2, 0]])
def test_coordinate_descent_ends_where_no_single_layer_gains(order):
    rng = np.random.default_rng(3)
    table = {bits: float(rng.normal()) for bits in itertools.product((32, 8, 4), repeat=3)}
    found = aiq.coordinate_descent(table.__getitem__, 3, order=order)
    last = found.best
    for layer, width in itertools.product(range(3), (32, 8, 4)):
        assert table[last] >= table[(*last[:layer], width, *last[layer + 1 :])]


@pytest.mark.parametrize("search", [
    aiq.narrowing, lambda *a, **o: aiq.narrowing(*a, revisit=True, **o), aiq.coordinate_descent,
])  # fmt: skip
@pytest.mark.parametrize("seed", range(5))
def test_a_bound_saves_evaluations_and_changes_nothing(search, seed):
    rng = np.random.default_rng(seed)
    worth = {bits: sum((32 - width) / 8 for width in bits) for bits in itertools.product((32, 8, 4), repeat=4)}
    fitness = {bits: top - rng.uniform(0, 2) for bits, top in worth.items()}
    plain, bounded = search(fitness.__getitem__, 4), search(fitness.__getitem__, 4, bound=worth.__getitem__)
    assert bounded.best == plain.best and bounded.evaluations < plain.evaluations
    taken = [[row["best_configuration"] for row in found.history] for found in (plain, bounded)]
    assert taken[0] == taken[1]


def test_coordinate_descent_refuses_an_order_that_misses_a_layer():
    with pytest.raises(ValueError, match="order must name each of 0..2 once"):
        aiq.coordinate_descent(additive(GAINS), 3, order=[0, 1, 1])


def test_random_configurations_of_equal_bytes():
    sizes, found = [100, 100, 400, 50], (4, 8, 8, 4)
    drawn = aiq.random_of_equal_bytes(found, sizes, count=3, seed=1)
    assert drawn and len(set(drawn)) == len(drawn) and found not in drawn
    wanted = np.dot(sizes, found)
    assert all(abs(np.dot(sizes, bits) - wanted) <= 0.01 * wanted for bits in drawn)
    assert drawn == aiq.random_of_equal_bytes(found, sizes, count=3, seed=1)
    with pytest.raises(ValueError, match="num_weights must be one number for each of 4 layers, got 2"):
        aiq.random_of_equal_bytes(found, [1, 2])
