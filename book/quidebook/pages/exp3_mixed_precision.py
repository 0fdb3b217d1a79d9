"""The page of EXP-3 (mixed precision, §4.2, Appendix B): its facts, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import f as fisher

from quide import metric, search, stats
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED
from quide.ptq.width import label
from quidebook import report, verdicts
from quidebook.report import gathered, percent, tabled
from quidebook.shared import landscape, table2
from quidebook.shared.answer import judged
from quidebook.shared.landscape import Landscapes, accuracy, countings, frontier, named, rank, uniform

SPLITS = 200  # random halves of the test set
SEARCHER, DRAWN = "genetic (Algorithm 1)", "random, as many"
PAPER_SEARCH = label(SEARCHED)


# --- all configurations ----------------------------------------------------------------------------------------------


def overview(truth: Landscapes) -> dict[str, object]:
    """How many configurations there are, how many the search asks for, and which ranks I' gives to the ones of note."""
    main, explored = truth.main, truth.explored
    return {
        "configurations": len(main.configurations),
        "stated": landscape.budget()["asked"],
        "population": landscape.budget()["population"],
        "generations": landscape.budget()["generations"],
        "asked": explored.calls,
        "new": explored.evaluations,
        "best": named(main, main.best),
        "searched": named(main, SEARCHED),
        "searched_rank": main.place(SEARCHED),
        "uniform_8": accuracy(main, uniform(8)),
        "uniform_8_rank": main.place(uniform(8)),
    }


def answer(truth: Landscapes, outcomes: pd.DataFrame) -> dict[str, object]:
    """How often the search finds the optimum, and on how many checkpoints its result beats uniform 8 bits; shares are
    fractions."""
    found = outcomes[(outcomes.method == SEARCHER) & (outcomes.counting == landscape.NOMINAL)]
    lands = truth.landscapes.values()
    return size(truth) | {
        "hits": int(found.hit.sum()),
        "searches": len(found),
        "configurations": len(truth.main.configurations),
        "checkpoints": len(lands),
        "ahead": sum(not _beats_uniform_8(land) for land in lands),
    }


def figure_frontier(truth: Landscapes) -> tuple[Figure, str]:
    """Figure 3 and its alternative text: accuracy against compression of every configuration, with the frontier and
    what the GA saw."""
    main = truth.main
    seen = set(truth.explored.evaluated)
    mask = np.array([each in seen for each in main.configurations])
    figure, axes = report.panels(2, width=7.4, height=4.0, sharey=True)
    words = []
    for axis, (name, land) in zip(axes, countings(main), strict=True):
        best = frontier(land)
        x, y = land.compression, 100 * land.accuracy
        axis.plot(x[~mask], y[~mask], ".", color="#8C8C8C", markersize=4, label="not evaluated by the GA")
        axis.plot(x[mask], y[mask], "o", color=report.BLUE, markersize=4, markerfacecolor="none", label="evaluated")
        order = np.flatnonzero(best)[np.argsort(x[best])]
        axis.plot(x[order], y[order], "-", color=report.GREEN, linewidth=1.3, label="frontier")
        for configuration, marker, colour, title in (
            (SEARCHED, "*", "black", f"{PAPER_SEARCH} (paper)"),
            (uniform(8), "s", report.PURPLE, "uniform 8"),
            (uniform(4), "v", report.PURPLE, "uniform 4"),
            (land.best, "D", report.ORANGE, "highest I'"),
        ):
            place = land.index_of(configuration)
            axis.plot(x[place], y[place], marker, color=colour, markersize=10 if marker == "*" else 7, label=title)
        axis.set(title=f"C {name}: highest I' at {label(land.best)}", xlabel="compression C", xscale="log")
        axis.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        axis.minorticks_off()
        axis.axhline(100 * land.threshold, color=report.GREY, linestyle=":", linewidth=1)
        words.append(
            f"C {name}: {best.sum()} of {len(x)} configurations, {len(_points(land))} different points, on the "
            f"frontier, highest I' at {named(land, land.best)}"
        )
    axes[0].set_ylabel("test accuracy (%)")
    report.legend_below(figure, axes[0], ncols=4, fontsize=8)
    return figure, f"Scatter plots. {'; '.join(words)}. The genetic search evaluated {mask.sum()} configurations."


def figure_scores(truth: Landscapes) -> tuple[Figure, str]:
    """Figure 4: I' against ACP and ALS."""
    main = truth.main
    parts = {
        "ACP = C P": metric.accuracy_compression_product(main.compression, main.accuracy),
        "ALS = P / log2(T + 1)": metric.accuracy_per_log_latency(main.accuracy, main.latency_ms),
    }
    figure, axes = report.panels(2, width=7.2, height=3.2)
    viable, words = main.gated_index > 0, []
    for axis, (name, values) in zip(axes, parts.items(), strict=True):
        axis.plot(values[viable], main.gated_index[viable], "o", color=report.BLUE, markersize=4, label="I' > 0")
        axis.plot(values[~viable], main.gated_index[~viable], "x", color=report.GREY, markersize=4, label="I' = 0")
        for configuration, marker, colour in ((SEARCHED, "*", "black"), (main.best, "D", report.ORANGE)):
            place = main.index_of(configuration)
            axis.plot(
                values[place], main.gated_index[place], marker, color=colour, markersize=9, label=label(configuration)
            )
        axis.set(xlabel=name, ylabel="I'")
        top = main.configurations[int(np.argmax(values))]
        axis.set_title(f"{name.split()[0]} prefers {label(top)}: I' {main.fitness[top]:.3f}")
        words.append(f"highest {name.split()[0]}: {named(main, top)}, I' {main.fitness[top]:.3f}")
    report.legend_below(figure, axes[0], ncols=4, fontsize=8)
    return figure, f"Scatter plots. {'; '.join(words)}."


# --- is the search any good? -----------------------------------------------------------------------------------------


@tabled
def searches(truth: Landscapes, seeds: int) -> Iterator[dict]:
    """Genetic search and its rivals over many seeds on all configurations, one row a (counting, method, seed).

    Random search draws as many distinct configurations as the genetic search of the same seed evaluated.
    Columns: counting, method, seed, best, hit (found the optimum), regret (share of the optimum's I' missed),
    evaluations.
    """
    for name, land in countings(truth.main):
        space = land.fitness.__getitem__, len(land.num_weights), CHOICES
        optimum, found = land.fitness[land.best], []
        for seed in range(seeds):
            explored = search.genetic(*space, seed=seed)
            found.append((SEARCHER, seed, explored))
            found.append((DRAWN, seed, search.random_search(*space, budget=explored.evaluations, seed=seed)))
        found += [("greedy", 0, search.greedy(*space)), ("exhaustive", 0, search.exhaustive(*space))]
        yield from [
            {
                "counting": name,
                "method": method,
                "seed": seed,
                "best": label(result.best),
                "hit": result.best_fitness == optimum,
                "regret": 1 - result.best_fitness / optimum,
                "evaluations": result.evaluations,
            }
            for method, seed, result in found
        ]


def marks(outcomes: pd.DataFrame) -> list[dict[str, object]]:
    """Of each method by way to count C: share of its searches that find the optimum, evaluations, regret."""
    columns = {
        "searches": ("seed", "size"), "hits": ("hit", "sum"), "evaluations": ("evaluations", "median"),
        "mean": ("regret", "mean"), "worst": ("regret", "max"),
    }  # fmt: skip
    rows = outcomes.groupby(["counting", "method"], sort=False).agg(**columns).reset_index().to_dict("records")
    for row in rows:
        share = report.with_interval(stats.wilson_interval(row["hits"], row["searches"]), 100, 0)
        row["finds"] = f"{share} %" if row["searches"] > 1 else "yes" if row["hits"] else "no"
    return rows


@gathered
def frontiers(truth: Landscapes, seeds: int = 5) -> Iterator[dict[str, object]]:
    """How much of the frontier NSGA-II finds, by way to count C: ``recall`` is the mean share of its points.

    Configurations that tie in accuracy and compression are one of ``points``, and several of ``members``.
    """
    for name, land in countings(truth.main):
        pairs = zip(land.accuracy.tolist(), land.compression.tolist(), strict=True)
        table = dict(zip(land.configurations, pairs, strict=True))
        explored = [search.nsga2(table.__getitem__, len(land.num_weights), CHOICES, seed=seed) for seed in range(seeds)]
        points = _points(land)
        yield {
            "counting": name,
            "recall": np.mean([len(points & set(each.front.values())) / len(points) for each in explored]),
            "points": len(points),
            "members": int(frontier(land).sum()),
            "seeds": seeds,
            "evaluations": np.median([each.evaluations for each in explored]),
            "configurations": len(table),
        }


# --- compression and latency -----------------------------------------------------------------------------------------


def size(truth: Landscapes) -> dict[str, float]:
    """What the paper's topology saves when bits are counted; shares and the drop in accuracy are fractions."""
    main = truth.main
    weights = np.array(main.num_weights)
    nominal, by_size = (land.compression[land.index_of(SEARCHED)] for _, land in countings(main))
    return {
        "searched": PAPER_SEARCH,
        "third": weights[2] / weights.sum(),
        "last": weights[3] / weights.sum(),
        "nominal": nominal,
        "by_size": by_size,
        "saved": 1 - 4 / by_size,
        "drop_pp": 100 * (accuracy(main, uniform(8)) - accuracy(main, SEARCHED)),
    }


@gathered
def top(truth: Landscapes, most: int = 5) -> Iterator[dict[str, object]]:
    """The best configurations by I' under each way to count C, and the paper's and uniform 8 wherever they stand."""
    for name, land in countings(truth.main):
        best = np.argsort(-land.gated_index, kind="stable")[:most].tolist()
        for index in dict.fromkeys([*best, land.index_of(SEARCHED), land.index_of(uniform(8))]):
            widths, score = land.configurations[index], land.gated_index[index]
            yield {
                "counting": name,
                "widths": label(widths),
                "rank": rank(land, widths),
                "compression": land.compression[index],
                "accuracy": land.accuracy[index],
                "score": score,
                "share": score / land.gated_index.max(),
            }


def latency(truth: Landscapes) -> dict[str, object]:
    """How far the configurations' latencies differ, and whether their widths have anything to do with it (F test)."""
    land, values = truth.main, truth.timed.values
    low, high = np.percentile(land.measured_ms, (5, 95))
    explained = 1 - np.var(land.measured_ms - land.latency_ms) / np.var(land.measured_ms)
    effects = sum(len(set(layer)) - 1 for layer in zip(*land.configurations, strict=True))
    left = len(land.measured_ms) - 1 - effects
    return {
        "configurations": len(land.measured_ms),
        "low_ms": low,
        "high_ms": high,
        "explained": explained,
        "by_noise": effects / (left + effects),
        "p": fisher.sf(explained / effects / ((1 - explained) / left), effects, left),
        "noise": report.noise(values["reasons"] if values["noisy"] else ()),
        "device": truth.device,
    }


@gathered
def checkpoints(truth: Landscapes) -> Iterator[dict[str, object]]:
    """The optimum on each checkpoint by either count of C and three ways to fix the latencies, and where the paper's
    topology and uniform 8 bits stand; ``stays`` is the share of resampled test sets on which the optimum is the same.
    """
    for seed, land in truth.landscapes.items():
        drawn = landscape.redrawn(land)
        for latencies, variant in (
            ("sum over layers", land),
            ("each measured once", land.measured_latency()),
            ("equal", land.equal_latency()),
        ):
            for name, counted in countings(variant):
                yield {
                    "seed": seed,
                    "latencies": latencies,
                    "counting": name,
                    "best": label(counted.best),
                    "accuracy": accuracy(land, counted.best),
                    "place": counted.place(SEARCHED),
                    "place_8": counted.place(uniform(8)),
                    "stays": landscape.optimum_shares(counted, *drawn).get(counted.best, 0.0),
                }


def agreement(rows: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """In how many cases (checkpoint, way to count C) of :func:`checkpoints` the optimum is the same by a sum over
    layers and at equal latency (``same``), and by single measurements too (``all``)."""
    optima = pd.DataFrame(rows).pivot(index=["seed", "counting"], columns="latencies", values="best")
    same = optima[optima["sum over layers"] == optima["equal"]]
    return {"same": len(same), "all": int((same.nunique(axis=1) == 1).sum()), "of": len(optima)}


# --- selection on test -----------------------------------------------------------------------------------------------


@tabled
def halves(truth: Landscapes, splits: int = SPLITS) -> Iterator[dict]:
    """Search on one random half of the test images, report on the other; one row a (counting, split).

    Columns: counting, best, chosen_accuracy and other_accuracy (of the choice, on the half it was chosen on and on the
    other), regret (share of the other half's best I' that the choice misses).
    """
    for name, land in countings(truth.main):
        generator = np.random.default_rng(0)
        for _ in range(splits):
            order = generator.permutation(len(land.reference))
            one, other = (land.on(part) for part in np.array_split(order, 2))
            place = one.index_of(one.best)
            yield {
                "counting": name,
                "best": label(one.best),
                "chosen_accuracy": one.accuracy[place],
                "other_accuracy": other.accuracy[place],
                "regret": 1 - other.gated_index[place] / other.gated_index.max(),
            }


@gathered
def flattery(splits: pd.DataFrame) -> Iterator[dict[str, object]]:
    """How much searching on the images one reports on flatters, by way to count C; ``low`` and ``high`` bound 95 % of
    the splits, all three in percentage points."""
    for counting, part in splits.groupby("counting", sort=False):
        points = 100 * (part.chosen_accuracy - part.other_accuracy)
        low, high = points.quantile([0.025, 0.975])
        chosen = part.best.value_counts(normalize=True).head(3)
        row = {"counting": counting, "mean": points.mean(), "low": low, "high": high}
        row |= part[["chosen_accuracy", "other_accuracy", "regret"]].mean()
        yield row | {"chosen": ", ".join(f"{name} ({share:.0%})" for name, share in chosen.items())}


# --- the end of the page ---------------------------------------------------------------------------------------------


def summary_table(truth: Landscapes, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims about EXP-3, one a row, with verdict and evidence."""
    found = outcomes[(outcomes.method == SEARCHER) & (outcomes.counting == landscape.NOMINAL)]
    rows = [
        *table2.claims(truth),
        (
            "the genetic search finds a good topology",
            verdicts.held(found.hit.mean() > 0.5),
            f"the optimum in {found.hit.mean():.0%} of {len(found)} seeds, mean regret {percent(found.regret.mean())}, "
            f"out of only {len(truth.main.configurations)} configurations",
        ),
        _over_checkpoints(
            truth,
            f"(implied) {PAPER_SEARCH} has the highest I' of all",
            lambda land: land.best == SEARCHED,
            lambda land: f"rank {land.place(SEARCHED)}",
        ),
        _over_checkpoints(
            truth,
            f"(implied) {PAPER_SEARCH} beats uniform 8 bits",
            _beats_uniform_8,
            lambda land: f"I' {land.fitness[SEARCHED]:.3f} against {land.fitness[uniform(8)]:.3f}",
        ),
        _over_checkpoints(
            truth,
            "(implied) the same, with compression counted by size",
            lambda land: _beats_uniform_8(land.size_weighted()),
            lambda land: f"rank {land.size_weighted().place(SEARCHED)}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def _over_checkpoints(
    truth: Landscapes, claim: str, holds: Callable[[Landscape], bool], says: Callable[[Landscape], str]
) -> tuple[str, str, str]:
    """A claim that each checkpoint answers, judged as the parts of a whole are on all pages: none of them is the one
    that the paper searches on. None where a noisy clock decides: where equal latencies answer otherwise."""
    answers = [holds(land) for land in truth.landscapes.values()]
    evidence = [f"seed {seed}: {says(land)}" for seed, land in truth.landscapes.items()]
    verdict = judged(map(verdicts.held, answers))
    if truth.timed.values["noisy"] and answers != [holds(land.equal_latency()) for land in truth.landscapes.values()]:
        verdict = verdicts.NOISY
    return claim, verdict, "; ".join(evidence)


def _beats_uniform_8(land: Landscape) -> bool:
    return land.fitness[SEARCHED] > land.fitness[uniform(8)]


def _points(land: Landscape) -> set[tuple[float, float]]:
    """Accuracy and compression of the configurations on the frontier, each pair once."""
    best = frontier(land)
    return set(zip(land.accuracy[best].tolist(), land.compression[best].tolist(), strict=True))
