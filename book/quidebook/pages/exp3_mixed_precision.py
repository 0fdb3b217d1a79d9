"""The page of EXP-3 (mixed precision, §4.2, Appendix B): which runs it needs, its tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import f as fisher
from tqdm import tqdm

from quide import metric, search, stats
from quide.evaluate import label
from quide.experiments import mixed, paper, records, runs
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED
from quide.search import Configuration
from quidebook import report
from quidebook.report import UNKNOWN, number, percent, with_origin

DATASET, MODEL = "cifar10", "simplecnn"
CONDITION = "cifar10-simplecnn"
NOMINAL, BY_SIZE = "nominal", "by size"
SPLITS = 200  # random halves of the test set
REPEATS = 1000  # bootstrap replicates of the test set
PENALTIES = (0.1, 0.5, 2.0)  # weights of the latency penalty
SEARCHER = "genetic (Algorithm 1)"


@dataclass(frozen=True)
class Found:
    """What is known: one landscape a seed, latencies of the first seed's network for all; ``profile`` they are from."""

    profile: str
    landscapes: dict[int, Landscape]
    timed: records.Record
    used: list[records.Record]

    @property
    def main(self) -> Landscape:
        """The checkpoint the paper searches on: that of the first seed."""
        return next(iter(self.landscapes.values()))

    @cached_property
    def explored(self) -> search.SearchResult:
        """The paper's search on that checkpoint: Algorithm 1 with its settings, seed 0."""
        return search.genetic(self.main.fitness.__getitem__, len(self.main.num_weights), CHOICES)

    @property
    def device(self) -> str:
        """Where the latencies were taken."""
        environment = self.timed.spec.details["environment"]
        return f"{environment['device_name']}, {environment['threads']} threads"


def run(seeds: Sequence[int], profile: str, device: str = "cpu") -> dict[int, Landscape]:
    """Accuracy of every configuration for each seed, latency for the first, computed where there is no record; joined
    to one landscape a seed."""
    cases = [runs.Case(MODEL, DATASET, seed, profile) for seed in seeds]
    known = [mixed.accuracy(case, progress=False).result() for case in tqdm(cases, desc="runs", unit="run")]
    timed = mixed.timing(cases[0], device, progress=False).result()
    return {case.seed: mixed.landscape(case, timed, record) for case, record in zip(cases, known, strict=True)}


def found(seeds: Sequence[int], profile: str) -> Found:
    """The paper profile's records where they exist, else those of ``profile``.

    Raises:
        FileNotFoundError: there are no records; the message carries the command.
    """
    for candidate in ("paper", profile):
        known = _known(candidate)
        timed = records.collect("mixed_latency", candidate, MODEL, DATASET)
        if known and timed:
            landscapes = {
                seed: mixed.landscape(runs.Case(MODEL, DATASET, seed, candidate), timed[0], record)
                for seed, record in known.items()
            }
            return Found(candidate, landscapes, timed[0], [*known.values(), timed[0]])
    raise FileNotFoundError(f"there is no record of EXP-3; run: quide run exp3 --profile {profile}")


def _known(profile: str) -> dict[int, records.Record]:
    seeds = sorted({record.spec.seed for record in records.collect("mixed_accuracy", profile, MODEL, DATASET)})
    known = {seed: mixed.accuracy(runs.Case(MODEL, DATASET, seed, profile)).known() for seed in seeds}
    return {seed: record for seed, record in known.items() if record is not None}


# --- the truth -------------------------------------------------------------------------------------------------------


def say_truth(truth: Found) -> None:
    """How many configurations there are, and what the best is worth."""
    main, explored = truth.main, truth.explored
    report.say(
        f"There are {len(main.configurations)} configurations. The paper's search asks for {explored.calls} fitness "
        f"values; with a memory of what it has seen, {explored.evaluations} of them are new. The best of all is "
        f"{_named(main, main.best)}; the paper's {label(SEARCHED)} ({percent(_accuracy(main, SEARCHED), 1)}) takes "
        f"place {main.place(SEARCHED)}, uniform 8 bits ({percent(_accuracy(main, _uniform(8)), 1)}) place "
        f"{main.place(_uniform(8))}."
    )


def figure_frontier(truth: Found) -> tuple:
    """Figure 3: accuracy against compression of every configuration, with the true frontier and what the GA saw."""
    main = truth.main
    seen = set(truth.explored.evaluated)
    figure, axes = report.panels(2, width=7.4, height=3.6)
    for axis, (name, land) in zip(axes, _countings(main), strict=True):
        frontier = _frontier(land)
        mask = np.array([each in seen for each in land.configurations])
        x, y = land.compression, 100 * land.accuracy
        axis.plot(x[~mask], y[~mask], ".", color="#8C8C8C", markersize=4, label="not evaluated by the GA")
        axis.plot(x[mask], y[mask], "o", color=report.BLUE, markersize=4, markerfacecolor="none", label="evaluated")
        order = np.argsort(x[frontier])
        axis.plot(x[frontier][order], y[frontier][order], "-", color=report.GREEN, linewidth=1.3, label="frontier")
        for configuration, marker, colour, title in (
            (SEARCHED, "*", "black", f"{label(SEARCHED)} (paper)"),
            (_uniform(8), "s", report.PURPLE, "uniform 8"),
            (_uniform(4), "v", report.PURPLE, "uniform 4"),
            (land.best, "D", report.ORANGE, f"highest I': {label(land.best)}"),
        ):
            place = land.index_of(configuration)
            axis.plot(x[place], y[place], marker, color=colour, markersize=10 if marker == "*" else 7, label=title)
        axis.set(title=f"C {name}", xlabel="compression C", xscale="log")
        axis.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        axis.minorticks_off()
        axis.axhline(100 * land.threshold, color=report.GREY, linestyle=":", linewidth=1)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(fontsize=7, loc="lower left")
    axes[1].legend(*[part[-1:] for part in axes[1].get_legend_handles_labels()], fontsize=7, loc="lower left")
    caption = (
        "The paper's Figure 3, with the truth: every configuration of SimpleCNN on CIFAR-10 (seed "
        f"{next(iter(truth.landscapes))}), accuracy against compression, counted as the paper does (left) and by size "
        "(right). Dotted: the accuracy threshold."
    )
    words = [
        f"C {name}: {_frontier(land).sum()} of {len(land.configurations)} configurations on the frontier, highest I' "
        f"at {_named(land, land.best)}"
        for name, land in _countings(main)
    ]
    alt = f"Scatter plots. {'; '.join(words)}. The genetic search evaluated {len(seen)} configurations."
    return figure, "fig-exp3-frontier", caption, alt


def figure_scores(truth: Found) -> tuple:
    """Figure 4: I' against ACP and ALS."""
    main = truth.main
    figure, axes = report.panels(2, width=7.2, height=3.2)
    product = metric.accuracy_compression_product(main.compression, main.accuracy)
    per_latency = metric.accuracy_per_log_latency(main.accuracy, main.latency_ms)
    words = []
    for axis, (name, values) in zip(
        axes, (("ACP = C P", product), ("ALS = P / log2(T + 1)", per_latency)), strict=True
    ):
        open_gate = main.gated_index > 0
        axis.plot(values[open_gate], main.gated_index[open_gate], "o", color=report.BLUE, markersize=4, label="I' > 0")
        axis.plot(
            values[~open_gate], main.gated_index[~open_gate], "x", color=report.GREY, markersize=4, label="I' = 0"
        )
        for configuration, marker, colour in (
            (SEARCHED, "*", "black"),
            (main.best, "D", report.ORANGE),
        ):
            place = main.index_of(configuration)
            axis.plot(
                values[place], main.gated_index[place], marker, color=colour, markersize=9, label=label(configuration)
            )
        axis.set(xlabel=name, ylabel="I'")
        top = main.configurations[int(np.argmax(values))]
        words.append(f"highest {name.split()[0]}: {_named(main, top)}, I' {main.fitness[top]:.3f}")
    axes[0].legend(fontsize=8)
    caption = (
        "The paper's Figure 4: I' of every configuration against its two parts, ACP (which ignores latency) and ALS "
        "(which ignores compression)."
    )
    return figure, "fig-exp3-scores", caption, f"Scatter plots. {'; '.join(words)}."


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def table2(truth: Found) -> pd.DataFrame:
    """Table 2: the paper's networks and ours, always with uniform 8 and 4 bits among them."""
    main = truth.main
    stated = paper.table2()
    stated = stated[stated.condition == CONDITION]
    by_size = main.size_weighted()
    rows = [
        _table2_row(truth, "full precision", None, _stated(stated, bits=32)),
        _table2_row(truth, "uniform 8", _uniform(8), _stated(stated, bits=8)),
        _table2_row(truth, "uniform 4", _uniform(4), _stated(stated, bits=4)),
        _table2_row(truth, "the paper's GA", SEARCHED, _stated(stated, topology=label(SEARCHED))),
        _table2_row(truth, "our GA, seed 0", truth.explored.best, None),
        _table2_row(truth, "best, C by size", by_size.best, None),
        _table2_row(truth, "HAQ, size wall", wall(by_size, SEARCHED), None),
        _table2_row(truth, "latency penalty", penalized(main, PENALTIES[1]), None),
    ]
    frame = pd.DataFrame(rows)
    estimate = {column: UNKNOWN for column in frame} | {
        "network": "BRECQ (estimate)",
        "verdict": report.UNDECIDED,
        "reason": "an estimated bound, not a measurement; its values are not in the paper's text",
    }
    return pd.concat([frame, pd.DataFrame([estimate])], ignore_index=True)


def _table2_row(truth: Found, name: str, configuration: Configuration | None, stated: pd.Series | None) -> dict:
    row = {"network": name, "widths": "32" if configuration is None else label(configuration)}
    accuracies = np.array(
        [
            float(land.reference.mean()) if configuration is None else _accuracy(land, configuration)
            for land in truth.landscapes.values()
        ]
    )
    main, interval = truth.main, stats.mean_interval(accuracies)
    std = f" ± {100 * accuracies.std(ddof=1):.2f}" if len(accuracies) > 1 else ""
    if configuration is None:
        timed = truth.timed.values["latencies"][mixed.FULL_PRECISION]["median_ms"]
        score = metric.gated_index(1.0, float(main.reference.mean()), timed, main.threshold)
        compression = sizes = 1.0
    else:
        place = main.index_of(configuration)
        score = main.gated_index[place]
        compression, sizes = main.compression[place], main.size_weighted().compression[place]
    row |= {
        "paper P (%)": UNKNOWN
        if stated is None
        else with_origin(number(100 * stated.accuracy, 2), stated.accuracy_origin),
        "ours P (%)": f"{100 * interval.estimate:.2f}{std}",
        "C (by size)": f"{compression:.2f} ({sizes:.2f})",
        "paper I'": UNKNOWN
        if stated is None
        else with_origin(number(stated.gated_index, 3), stated.gated_index_origin),
        "ours I'": number(score, 3),
    }
    if stated is None:
        return row | {
            "verdict": report.UNDECIDED,
            "reason": "not in the paper's table" if "uniform" not in name else "not stated",
        }
    verdict, reason = report.accuracy_verdict(stated.accuracy, interval.estimate, interval.low, interval.high)
    return row | {"verdict": verdict, "reason": reason}


def _stated(table: pd.DataFrame, **wanted) -> pd.Series | None:
    """The row of the paper's Table 2 with these values; None if it has none."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return None if table.empty else table.iloc[0]


def wall(land: Landscape, budget: Configuration) -> Configuration:
    """HAQ's objective: the highest accuracy among configurations that need no more memory than ``budget`` does.

    HAQ (Wang et al., 2019) rewards accuracy alone and enforces the resource as a hard limit on what the agent may
    choose. Where everything can be enumerated, what its agent looks for is this maximum.
    """
    allowed = land.compression >= land.compression[land.index_of(budget)] * (1 - 1e-12)
    return land.configurations[int(np.where(allowed, land.accuracy, -1).argmax())]


def penalized(land: Landscape, weight: float) -> Configuration:
    """The paper's wording of a "latency-penalized reward": the highest ``P - weight * T / (largest T)``."""
    return land.configurations[int((land.accuracy - weight * land.latency_ms / land.latency_ms.max()).argmax())]


def objectives_table(truth: Found) -> pd.DataFrame:
    """What each objective picks on the first checkpoint, and what the pick is worth under the others."""
    rows = []
    for name, land in _countings(truth.main):
        picks = [(f"I', C {name}", land.best)]
        picks += [(f"HAQ, wall at {label(w)}, C {name}", wall(land, w)) for w in (SEARCHED, _uniform(8))]
        rows += [(objective, pick) for objective, pick in picks]
    rows += [(f"accuracy less {weight:g} T / max T", penalized(truth.main, weight)) for weight in PENALTIES]
    by_size = truth.main.size_weighted()
    return pd.DataFrame(
        {
            "objective": objective,
            "picks": label(pick),
            "P": percent(_accuracy(truth.main, pick)),
            "C": number(truth.main.compression[truth.main.index_of(pick)], 2),
            "C by size": number(by_size.compression[by_size.index_of(pick)], 2),
            "place by I', C nominal": f"{truth.main.place(pick)} of {len(by_size.configurations)}",
            "place by I', C by size": f"{by_size.place(pick)} of {len(by_size.configurations)}",
        }
        for objective, pick in rows
    )


# --- is the search any good? -----------------------------------------------------------------------------------------


def searches(truth: Found, seeds: int) -> pd.DataFrame:
    """Genetic search and two rivals over many seeds on the true table, one row a (counting, method, seed).

    Random search draws as many distinct configurations as the genetic search of the same seed evaluated.
    Columns: counting, method, seed, best, hit (found the optimum), regret (share of the optimum's I' missed),
    evaluations, to_best.
    """
    rows = []
    for name, land in _countings(truth.main):
        fitness, layers = land.fitness.__getitem__, len(land.num_weights)
        for seed in range(seeds):
            explored = search.genetic(fitness, layers, CHOICES, seed=seed)
            drawn = search.random_search(fitness, layers, CHOICES, budget=explored.evaluations, seed=seed)
            rows += [
                _outcome(land, name, SEARCHER, seed, explored),
                _outcome(land, name, "random, as many", seed, drawn),
            ]
        rows.append(_outcome(land, name, "greedy", 0, search.greedy(fitness, layers, CHOICES)))
        rows.append(_outcome(land, name, "exhaustive", 0, search.exhaustive(fitness, layers, CHOICES)))
    return pd.DataFrame(rows)


def _outcome(land: Landscape, counting: str, method: str, seed: int, result: search.SearchResult) -> dict:
    optimum = land.fitness[land.best]
    return {
        "counting": counting,
        "method": method,
        "seed": seed,
        "best": label(result.best),
        "hit": result.best_fitness == optimum,
        "regret": 1 - result.best_fitness / optimum,
        "evaluations": result.evaluations,
        "to_best": result.evaluations_to_best,
    }


def search_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Hit rate, evaluations and regret of each method."""
    rows = []
    for (counting, method), part in outcomes.groupby(["counting", "method"], sort=False):
        several = len(part) > 1
        interval = stats.wilson_interval(int(part.hit.sum()), len(part))
        rows.append(
            {
                "search": method,
                "C": counting,
                "seeds": len(part) if several else "none needed",
                "finds the optimum": report.with_interval(interval, 100, 0) + " %"
                if several
                else _yes(part.hit.iloc[0]),
                "evaluations (median)": f"{part.evaluations.median():.0f}",
                "until its best (median)": f"{part.to_best.median():.0f}",
                "regret, mean": percent(part.regret.mean()),
                "regret, worst": percent(part.regret.max()),
            }
        )
    return pd.DataFrame(rows)


def figure_progress(truth: Found, seeds: int) -> tuple:
    """Best I' so far against evaluations, median and range over seeds, GA and random search."""
    land = truth.main
    fitness, layers, optimum = land.fitness.__getitem__, len(land.num_weights), land.fitness[land.best]
    figure, axes = report.panels(width=6.5, height=3.2)
    words = []
    for name, colour, style, find in (
        (SEARCHER, report.BLUE, "-", search.genetic),
        ("random search", report.ORANGE, "--", search.random_search),
    ):
        curves = [find(fitness, layers, CHOICES, seed=seed).best_so_far / optimum for seed in range(seeds)]
        length = max(map(len, curves))
        padded = np.array([np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves])
        low, median, high = 100 * np.percentile(padded, (10, 50, 90), axis=0)
        axes[0].plot(range(1, length + 1), median, style, color=colour, label=name)
        axes[0].fill_between(range(1, length + 1), low, high, color=colour, alpha=0.18, linewidth=0)
        words.append(f"{name}: median {median[min(49, length - 1)]:.1f} % of the optimum after 50 evaluations")
    axes[0].set(
        xlabel="distinct configurations evaluated", ylabel="best I' so far (% of the optimum)", ylim=(80, 100.5)
    )
    axes[0].legend(loc="lower right")
    caption = f"Search progress over {seeds} seeds: median, and band from the 10th to the 90th percentile."
    return figure, "fig-exp3-progress", caption, "Line plot. " + "; ".join(words) + "."


def say_frontier(truth: Found, seeds: int = 5) -> None:
    """How much of the true frontier NSGA-II finds."""
    lines = []
    for name, land in _countings(truth.main):
        table = {
            each: (p, c)
            for each, p, c in zip(land.configurations, land.accuracy.tolist(), land.compression.tolist(), strict=True)
        }
        true = {each for each, keep in zip(land.configurations, _frontier(land), strict=True) if keep}
        explored = [search.nsga2(table.__getitem__, len(land.num_weights), CHOICES, seed=seed) for seed in range(seeds)]
        points = {table[each] for each in true}
        recall = [len(points & set(each.front.values())) / len(points) for each in explored]
        evaluations = np.median([each.evaluations for each in explored])
        lines.append(
            f"with C {name}, {100 * np.mean(recall):.0f} % of the frontier's {len(points)} points (mean of {seeds} "
            f"seeds) in {evaluations:.0f} of {len(table)} evaluations (median)"
        )
    report.say("{term}`NSGA-II`, which looks for the whole frontier instead of one score: " + "; ".join(lines) + ".")


# --- compression counted two ways ------------------------------------------------------------------------------------


def top_table(truth: Found, most: int = 5) -> pd.DataFrame:
    """The best configurations by I' under each way to count C, and the paper's wherever it stands."""
    rows = []
    for name, land in _countings(truth.main):
        order = np.argsort(-land.gated_index, kind="stable")
        shown = [
            *order[:most],
            *(i for i in (land.index_of(SEARCHED), land.index_of(_uniform(8))) if i not in order[:most]),
        ]
        for index in shown:
            configuration = land.configurations[index]
            rows.append(
                {
                    "widths": label(configuration),
                    "C counted": name,
                    "place": f"{land.place(configuration)} of {len(order)}",
                    "C": number(land.compression[index], 2),
                    "P": percent(land.accuracy[index]),
                    "I'": number(land.gated_index[index], 3),
                    "of the best": percent(land.gated_index[index] / land.gated_index.max(), 1),
                }
            )
    return pd.DataFrame(rows)


def say_size(truth: Found) -> None:
    """What the paper's topology saves when bits are counted."""
    main = truth.main
    weights = np.array(main.num_weights)
    place = main.index_of(SEARCHED)
    true = main.size_weighted().compression[place]
    drop = 100 * (_accuracy(main, _uniform(8)) - _accuracy(main, SEARCHED))
    report.say(
        f"The third layer holds {percent(weights[2] / weights.sum(), 1)} of the weights and the last one "
        f"{percent(weights[3] / weights.sum(), 2)}. So {label(SEARCHED)} is {main.compression[place]:.2f} by the "
        f"paper's formula and {true:.3f} in bits: against uniform 8 bits it saves {percent(1 - 4 / true)} of the "
        f"weights' memory and costs {drop:.1f} pp of accuracy."
    )


def seeds_table(truth: Found) -> pd.DataFrame:
    """The optimum of each checkpoint, by either count of C and by three ways to fix the latencies."""
    rows = []
    for seed, land in truth.landscapes.items():
        drawn = redrawn(land)
        variants = (
            ("sum over layers", land),
            ("each measured once", land.measured_latency()),
            ("equal", land.equal_latency()),
        )
        for latency, variant in variants:
            for name, counted in _countings(variant):
                rows.append(
                    {
                        "checkpoint": f"seed {seed}",
                        "T": latency,
                        "C": name,
                        "optimum": label(counted.best),
                        "P": percent(_accuracy(counted, counted.best)),
                        "stays the optimum": percent(optimum_shares(counted, *drawn).get(counted.best, 0.0), 0),
                        f"place of {label(SEARCHED)}": counted.place(SEARCHED),
                        "place of 8-8-8-8": counted.place(_uniform(8)),
                    }
                )
    return pd.DataFrame(rows)


def redrawn(land: Landscape, repeats: int = REPEATS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies on test images drawn anew, with replacement: ``(repeats, configurations)``, and ``(repeats,)`` of the
    full-precision network."""
    images = len(land.reference)
    counts = stats.resample(np.random.default_rng(seed), repeats, images).astype(np.float32)
    both = np.column_stack([land.correct, land.reference]).astype(np.float32)
    accuracy = np.minimum((counts @ both).astype(float) / images, 1.0)
    return accuracy[:, :-1], accuracy[:, -1]


def optimum_shares(land: Landscape, accuracy: np.ndarray, reference: np.ndarray) -> dict[Configuration, float]:
    """How often each configuration is the optimum among the accuracies of :func:`redrawn`."""
    threshold = metric.accuracy_threshold(reference, land.tolerance, land.num_classes)
    score = metric.gated_index(land.compression, accuracy, land.latency_ms, threshold[:, None])
    winners, times = np.unique(score.argmax(1), return_counts=True)
    return {land.configurations[i]: count / len(score) for i, count in zip(winners, times.tolist(), strict=True)}


def say_latency(truth: Found) -> None:
    """How far the configurations' latencies differ, and whether their widths have anything to do with it."""
    land, values = truth.main, truth.timed.values
    low, high = np.percentile(land.measured_ms, (5, 95))
    explained = 1 - np.var(land.measured_ms - land.latency_ms) / np.var(land.measured_ms)
    effects = sum(len(set(layer)) - 1 for layer in zip(*land.configurations, strict=True))
    left = len(land.measured_ms) - 1 - effects
    chance = fisher.sf(explained / effects / ((1 - explained) / left), effects, left)
    noisy = " The machine was noisy: " + "; ".join(values["reasons"]) + "." if values["noisy"] else ""
    report.say(
        f"Of {len(land.measured_ms)} configurations, nine in ten took between {low:.2f} and {high:.2f} ms. The widths "
        f"explain {percent(explained, 1)} of the variance, where noise alone would explain "
        f"{percent(effects / (left + effects), 1)} (F test, p = {chance:.2f}).{noisy} As a sum over layers T lies "
        f"between {land.latency_ms.min():.2f} and {land.latency_ms.max():.2f} ms. Measured on: {truth.device}."
    )


# --- selection on test -----------------------------------------------------------------------------------------------


def halves(truth: Found, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """Search on one random half of the test images, report on the other; one row a (counting, split).

    Columns: counting, best, chosen_accuracy and other_accuracy (of the choice, on the half it was chosen on and on the
    other), chosen_index and other_index likewise, regret (share of the other half's best I' that the choice misses).
    """
    rows = []
    for name, land in _countings(truth.main):
        generator = np.random.default_rng(seed)
        for _ in range(splits):
            order = generator.permutation(len(land.reference))
            one, other = (land.on(part) for part in np.array_split(order, 2))
            place = one.index_of(one.best)
            rows.append(
                {
                    "counting": name,
                    "best": label(one.best),
                    "chosen_accuracy": one.accuracy[place],
                    "other_accuracy": other.accuracy[place],
                    "chosen_index": one.gated_index[place],
                    "other_index": other.gated_index[place],
                    "regret": 1 - other.gated_index[place] / other.gated_index.max(),
                }
            )
    return pd.DataFrame(rows)


def halves_table(splits: pd.DataFrame) -> pd.DataFrame:
    """How much searching on the images one reports on flatters."""
    rows = []
    for counting, part in splits.groupby("counting", sort=False):
        flattery = 100 * (part.chosen_accuracy - part.other_accuracy)
        low, high = flattery.quantile([0.025, 0.975])
        chosen = part.best.value_counts()
        rows.append(
            {
                "C": counting,
                "chosen (share of splits)": ", ".join(
                    f"{name} ({count / len(part):.0%})" for name, count in chosen.head(3).items()
                ),
                "P on its half": percent(part.chosen_accuracy.mean()),
                "P on the other": percent(part.other_accuracy.mean()),
                "flattered by (pp, 95 % of splits)": f"{flattery.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                "I' flattered by": percent((part.chosen_index / part.other_index - 1).mean()),
                "I' missed on the other half": percent(part.regret.mean()),
            }
        )
    return pd.DataFrame(rows)


# --- the end of the page ---------------------------------------------------------------------------------------------


def table2_claims(truth: Found) -> list[tuple[str, str, str]]:
    """What the paper claims of its searched network in Table 2, with verdict and evidence."""
    main, by_size = truth.main, truth.main.size_weighted()
    index = {name: main.fitness[widths] for name, widths in (("ga", SEARCHED), ("4", _uniform(4)))}
    timed = truth.timed.values["latencies"][mixed.FULL_PRECISION]["median_ms"]
    full = metric.gated_index(1.0, float(main.reference.mean()), timed, main.threshold)
    stated = paper.number(f"{CONDITION}.compression.{label(SEARCHED)}")
    place = main.index_of(SEARCHED)
    return [
        _claim(
            f"{label(SEARCHED)} scores above uniform 4 bits and full precision",
            index["ga"] > max(index["4"], full),
            f"I' {index['ga']:.3f} against {index['4']:.3f} and {full:.3f}",
        ),
        _claim(
            f"its compression is {stated}",
            abs(main.compression[place] - stated) < 0.005,
            f"{main.compression[place]:.2f} by the paper's formula, {by_size.compression[place]:.3f} in bits",
        ),
    ]


def summary_table(truth: Found, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims about EXP-3, one a row, with verdict and evidence."""
    main = truth.main
    found_rate = outcomes[(outcomes.method == SEARCHER) & (outcomes.counting == NOMINAL)]
    rows = [
        *table2_claims(truth),
        _claim(
            "the genetic search finds a good topology",
            bool(found_rate.hit.mean() > 0.5),
            f"the optimum in {found_rate.hit.mean():.0%} of {len(found_rate)} seeds, mean regret "
            f"{percent(found_rate.regret.mean())}, out of only {len(main.configurations)} configurations",
        ),
        _over_checkpoints(
            truth,
            f"(implied) {label(SEARCHED)} has the highest I' of all",
            lambda land: land.best == SEARCHED,
            lambda land: f"place {land.place(SEARCHED)}",
        ),
        _over_checkpoints(
            truth,
            f"(implied) {label(SEARCHED)} beats uniform 8 bits",
            _beats_uniform_8,
            lambda land: f"I' {land.fitness[SEARCHED]:.3f} against {land.fitness[_uniform(8)]:.3f}",
        ),
        _over_checkpoints(
            truth,
            "(implied) the same, with compression counted by size",
            lambda land: _beats_uniform_8(land.size_weighted()),
            lambda land: f"place {land.size_weighted().place(SEARCHED)}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def this_run_table(landscapes: Mapping[int, Landscape]) -> pd.DataFrame:
    """What this rendering ran: the optimum of each seed, and the paper's topology."""
    rows = []
    for seed, land in landscapes.items():
        for name, counted in _countings(land):
            rows.append(
                {
                    "seed": str(seed),
                    "C": name,
                    "images": len(land.reference),
                    "optimum": label(counted.best),
                    "P of the optimum": percent(_accuracy(counted, counted.best)),
                    f"P of {label(SEARCHED)}": percent(_accuracy(counted, SEARCHED)),
                    f"place of {label(SEARCHED)}": f"{counted.place(SEARCHED)} of {len(counted.configurations)}",
                }
            )
    return pd.DataFrame(rows)


def _over_checkpoints(
    truth: Found, claim: str, holds: Callable[[Landscape], bool], says: Callable[[Landscape], str]
) -> tuple[str, str, str]:
    """A claim that each checkpoint answers: reproduced where all say so, in part where some do."""
    answers = [holds(land) for land in truth.landscapes.values()]
    evidence = "; ".join(f"seed {seed}: {says(land)}" for seed, land in truth.landscapes.items())
    verdict = report.REPRODUCED if all(answers) else report.IN_PART if any(answers) else report.NOT_REPRODUCED
    return claim, verdict, evidence


def _beats_uniform_8(land: Landscape) -> bool:
    return land.fitness[SEARCHED] > land.fitness[_uniform(8)]


def _claim(claim: str, holds: bool, evidence: str) -> tuple[str, str, str]:
    return claim, report.REPRODUCED if holds else report.NOT_REPRODUCED, evidence


# --- helpers ---------------------------------------------------------------------------------------------------------


def _countings(land: Landscape) -> tuple[tuple[str, Landscape], ...]:
    return (NOMINAL, land), (BY_SIZE, land.size_weighted())


def _uniform(bits: int) -> Configuration:
    return (bits,) * len(SEARCHED)


def _accuracy(land: Landscape, configuration: Configuration) -> float:
    return float(land.accuracy[land.index_of(configuration)])


def _named(land: Landscape, configuration: Configuration) -> str:
    return f"{label(configuration)} ({percent(_accuracy(land, configuration), 1)})"


def _frontier(land: Landscape) -> np.ndarray:
    return search.pareto_front(np.column_stack([land.accuracy, land.compression]))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
