"""The page that examines the paper: its statements against its own numbers, and against our records where they answer.

Every finding is computed from ``data/paper``; each says what the paper claims, what comes out, what it hangs on and
what would settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torchvision
from scipy.stats import chi2

from quide import evaluate, metric, search
from quide.data import datasets
from quide.evaluate import label
from quide.experiments import paper
from quide.experiments.mixed import CHOICES
from quide.experiments.recipes import SEARCHED
from quide.latency import BATCH_SIZE
from quide.models import networks
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.pages import exp1_simplecnn as exp1
from quidebook.report import UNKNOWN, number, percent, with_origin
from quidebook.shared.landscape import Landscapes
from quidebook.shared.table3 import DECODINGS, LLAMA, LLAMA_WEIGHTS, RTX_3090_BYTES_PER_S

C10, C100, R18, IN = "cifar10-simplecnn", "cifar100-simplecnn", "cifar10-resnet18", "imagenet-resnet18"
SEARCHED_IN = (8, 8, 8, 8, 8, 16)  # Table 2, ImageNet
SIMPLECNN = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
UNITS = {"ms a batch (the paper's)": 1.0, "ms an image": float(BATCH_SIZE), "s a batch": 1000.0}  # time constant in ms
STEP = 0.05  # what a round threshold is a multiple of
DIGITS, ASSUMES = "the printed digits", "the printed digits and an assumption"


@dataclass(frozen=True)
class Finding:
    """One finding, in words whose numbers were computed.

    Attributes:
        title: the matter.
        headline: what comes out, in one sentence.
        claim: what the paper says, with the section.
        result: the computation.
        rests_on: :data:`DIGITS` or :data:`ASSUMES`.
        sure: how sure it is, and the assumption.
        settles: what would settle it.
        ours: what our records say; empty where there are none.
    """

    title: str
    headline: str
    claim: str
    result: str
    rests_on: str
    sure: str
    settles: str
    ours: str = ""


def say(finding: Finding) -> None:
    """Display a finding as a list of its parts."""
    parts = {
        "The paper": finding.claim,
        "Computed": f"{finding.headline} {finding.result}",
        "Our records": finding.ours,
        "How sure": f"It rests on {finding.rests_on}. {finding.sure}",
        "What would settle it": finding.settles,
    }
    report.say("\n".join(f"- **{name}.** {text}" for name, text in parts.items() if text))


def findings(truth: Landscapes | None, found: Sequence[Measured]) -> list[Finding]:
    """All findings, in the order of the page.

    Args:
        truth: every mixed configuration on CIFAR-10, as records have it; None without records.
        found: the conditions with records; may be empty.
    """
    return [
        thresholds(),
        gate(found),
        searched_cifar10(truth),
        searched_imagenet(),
        size(truth),
        search_space(truth),
        units(found),
        tolerance(found),
        latency(found),
        noise(found),
        llama_units(),
    ]


def overview(all_findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding: the matter, what comes out, what it rests on."""
    return pd.DataFrame(
        {"matter": each.title, "what comes out": each.headline, "rests on": each.rests_on} for each in all_findings
    )


# --- what checks out -------------------------------------------------------------------------------------------------


def checks_table() -> pd.DataFrame:
    """Statements of the paper that can be recomputed from other statements of it, with a verdict each."""
    rows = [*_score_checks(), *_ratio_checks(), *_drop_checks(), *_property_checks(), *_order_checks()]
    table = pd.DataFrame(rows, columns=["statement", "stated", "recomputed", "verdict"])
    return table[["statement", "verdict", "stated", "recomputed"]]


def _score_checks() -> list[tuple]:
    rows = []
    threshold = paper.conditions().at[R18, "threshold_used"]
    for bits in (8, 4):
        accuracy, latency_ms = (_printed(f"{R18}.{quantity}.{bits}") for quantity in ("accuracy", "latency_ms"))
        for quantity, sign, floor in (("index", "I", 0.0), ("gated_index", "I'", threshold)):
            found = [metric.gated_index(32 / bits, p, t, floor) for p, t in product(accuracy, latency_ms)]
            stated = _printed(f"{R18}.{quantity}.{bits}")
            rows.append(_check(f"ResNet-18 on CIFAR-10, {bits} bits: {sign} follows from P and T", stated, found, 3))
    known = paper.numbers().loc[f"{C100}.threshold.4", ["low", "high"]].tolist()
    rows.append(_check("CIFAR-100: threshold, from I and I' at 4 bits", _printed(f"{C100}.threshold.stated"), known, 4))
    fastest = paper.numbers().loc[f"{C10}.latency_ms.32", ["low", "high"]].tolist()
    rows.append(_check("CIFAR-10: least latency (ms), from I' at 32 bits", _printed(f"{C10}.latency_ms.min"), fastest))
    return rows


def _ratio_checks() -> list[tuple]:
    rows = []
    for name, condition, *ends in (("CIFAR-10", C10, "min", "max"), ("ResNet-18", R18, "16", "8")):
        fast, slow = (_printed(f"{condition}.latency_ms.{end}") for end in ends)
        penalties = [metric.latency_penalty(high) / metric.latency_penalty(low) for low, high in product(fast, slow)]
        stated = _printed(f"{condition}.latency_penalty_ratio.range")
        rows.append(_check(f"{name}: slowest over fastest width, in log2(T + 1)", stated, penalties))
    compression = metric.compression_ratio(SEARCHED)
    stated = _printed(f"{C10}.compression.{label(SEARCHED)}")
    rows.append(_check(f"compression of {label(SEARCHED)}, layers counted alike", stated, [compression, compression]))
    return rows


def _drop_checks() -> list[tuple]:
    rows = []
    for condition in (C10, C100, R18):
        drop = 100 * (paper.number(f"{condition}.accuracy.32") - paper.number(f"{condition}.accuracy.4"))
        stated = 100 * paper.number(f"{condition}.accuracy_drop.4")
        verdict = report.REPRODUCED if round(drop) == round(stated) else report.IN_PART
        cut = "" if verdict == report.REPRODUCED else ", cut off instead of rounded"
        name = paper.conditions().at[condition, "label"]
        rows.append((f"{name}: drop from 32 to 4 bits (pp)", f"{stated:.0f}", f"{drop:.2f}{cut}", verdict))
    return rows


def _property_checks() -> list[tuple]:
    """The properties of the logarithm that §3.2 claims."""
    same = all(
        metric.rank(each.table.index, each.index()) == metric.rank(each.table.index, _in_natural_logarithm(each))
        for each in readings.of_paper()
    )
    a, b = np.meshgrid(np.logspace(-3, 4, 50), np.logspace(-3, 4, 50))
    together = metric.latency_penalty(a + b)
    apart = metric.latency_penalty(a) + metric.latency_penalty(b)
    return [
        ("the base of the logarithm changes no order", "none", "none" if same else "some", _verdict(same)),
        (
            "two latencies together cost less than one by one",
            "always",
            f"{(together < apart).mean():.0%} of {a.size} pairs",
            _verdict(bool((together < apart).all())),
        ),
    ]


def _in_natural_logarithm(reading: Reading) -> pd.Series:
    table = reading.table
    return table["compression"] * table["accuracy"] / np.log1p(table["latency_ms"])


def _order_checks() -> list[tuple]:
    """Stated orders, of the widths with numbers, that hold at one end at least of what is known in between."""
    rows, known = [], readings.of_paper()
    for _, row in paper.rankings().query("origin == 'stated' and metric in ('index', 'gated_index')").iterrows():
        orders = []
        for each in known:
            if each.condition != row["condition"]:
                continue
            scores = each.index() if row["metric"] == "index" else each.gated_index()
            scores = scores[scores.index.isin(row["order"])]
            orders.append(metric.rank(scores.index, scores))
        if not orders or len(orders[0]) < 2:
            continue
        stated = [bits for bits in row["order"] if bits in orders[0]]
        shown = stated if stated in orders else orders[0]
        name, sign = paper.conditions().at[row["condition"], "label"], "I" if row["metric"] == "index" else "I'"
        rows.append((f"{name}: order by {sign}", _order(row["order"]), _order(shown), _verdict(shown == stated)))
    return rows


def say_checks(checks: pd.DataFrame) -> None:
    """How many of them agree."""
    agree = (checks["verdict"] == report.REPRODUCED).sum()
    report.say(
        f"**{agree} of {len(checks)} statements that can be recomputed agree to the printed digits.** The formulas "
        "were applied as they are written, and the central example holds: on ResNet-18 the raw index puts 4 bits "
        "before 8, and the gate puts that right."
    )


def measured_checks_table() -> pd.DataFrame:
    """The claims about SimpleCNN that our own measurements confirm."""
    conditions = [each for each in exp1.conditions(SIMPLECNN) if each.measured is not None]
    if not conditions:
        return pd.DataFrame()
    summary = exp1.summary_table(conditions, exp1.recipe_results([each.dataset for each in conditions]))
    return summary[summary["verdict"] == report.REPRODUCED]


def say_measured_checks(confirmed: pd.DataFrame) -> None:
    """How many, and where the others are."""
    if confirmed.empty:
        return report.say("There is no record yet to check the paper's measurements with.")
    report.say(
        f"{len(confirmed)} of the claims about SimpleCNN are confirmed by our own measurements; "
        "[EXP-1](exp1_simplecnn.ipynb) has these and the others."
    )


# --- thresholds ------------------------------------------------------------------------------------------------------


def thresholds() -> Finding:
    """Eq. 4 against the thresholds that the scores were computed with."""
    table = paper.conditions()
    rounded = (table["full_precision_accuracy"] - table["tolerance"]).round(2)
    steps = rounded / STEP
    fits = int(np.isclose(steps, steps.round()).sum())
    llama, implied = table.loc[LLAMA], paper.numbers().loc[f"{R18}.threshold.4"]
    unchanged = all(
        each.knee == metric.knee(each.table.index, each.gated_index(table.at[each.condition, "threshold_equation_4"]))
        for each in readings.of_paper()
    )
    effect = "no knee that can be computed changes" if unchanged else "a knee changes"
    return Finding(
        "Thresholds and Eq. 4",
        f"In {fits} of {len(table)} conditions the full-precision accuracy less δ is, to two digits, a multiple of "
        f"{STEP}; where the scores can tell, they were made with that multiple.",
        "The threshold is the full-precision accuracy less a tolerance chosen for the task, or chance if that is "
        "higher (Eq. 4); Table 1 is said to follow it (§3.2, §4.2).",
        "On ResNet-18 the stated pair of I and "
        f"I' gives a threshold between {implied['low']:.4f} and {implied['high']:.4f}, where Eq. 4 gives "
        f"{table.at[R18, 'threshold_equation_4']:.4f}; for Llama the text itself states {llama['threshold_used']:.2f}, "
        f"where Eq. 4 gives {llama['threshold_equation_4']:.3f}. A simple explanation is that round thresholds "
        "came first and the tolerances were written down after. It is harmless for the results: with Eq. 4 instead, "
        f"{effect}.",
        DIGITS,
        "Certain for CIFAR-100, ResNet-18 on CIFAR-10 and Llama, where stated numbers decide. For the others it is a "
        "pattern, not a proof.",
        "The script that computed Table 1, or its I and I' with one digit more.",
    )


def thresholds_table() -> pd.DataFrame:
    """One row a condition: full-precision accuracy, tolerance, Eq. 4, what the scores imply, what they fit."""
    known = paper.numbers()
    rows = []
    for name, facts in paper.conditions().iterrows():
        implied = known[known.index.str.startswith(f"{name}.threshold.") & (known["origin"] == "derived")]
        rows.append(
            {
                "condition": facts["label"],
                "P_FP": number(facts["full_precision_accuracy"], 4),
                "δ": number(facts["tolerance"], 2),
                "P_FP − δ": number(facts["full_precision_accuracy"] - facts["tolerance"], 4),
                "Eq. 4": number(facts["threshold_equation_4"], 4),
                "implied by I'/I": "; ".join(
                    f"{row['low']:.5f} to {row['high']:.5f} ({row['bits']} bits)" for _, row in implied.iterrows()
                )
                or UNKNOWN,
                "fits": with_origin(number(facts["threshold_used"], 2), facts["threshold_origin"]),
            }
        )
    return pd.DataFrame(rows)


# --- the gate --------------------------------------------------------------------------------------------------------


def gate(found: Sequence[Measured]) -> Finding:
    """Whether I' is zero where the paper calls a network collapsed."""
    rows = _collapsed()
    open_gates = [row for row in rows if row["gated"] > 0]
    above = [
        f"{row['name']} ({row['gated']:.3f} against {row['full'][0]:.3f})"
        for row in rows
        if row["gated"] > max(row["full"])
    ]
    ours = []
    for each in found:
        scores = readings.of_measured(each).gated_index()
        ours.append(f"{_label(each)}: I' is {scores[4]:.3f} at 4 bits, {scores[8]:.3f} at 8 and {scores[32]:.3f} at 32")
    return Finding(
        "What the gate catches",
        f"It is zero on {len(rows) - len(open_gates)} of {len(rows)} networks that collapse at 4 bits; on each of them "
        "8 bits come first.",
        "I' gives zero to what is not viable, and so flags the collapse at 4 bits (abstract, §3.2, §4.2).",
        f"On the others I' stays above zero at 4 bits, and on {' and '.join(above)} even above full precision. What I' "
        "does in every one of these conditions is to put 8 bits before 4: the correction of the ranking that §5 names "
        "as its main value holds.",
        DIGITS,
        "The scores at 4 bits are stated. I' at 32 bits is stated for CIFAR-10; for CIFAR-100 it assumes CIFAR-10's "
        "latency at 32 bits on nearly the same network.",
        "Nothing is open in the numbers. Whether a network at such an accuracy is viable is for its user to say; the "
        "tolerance at which the gate would close is in the table.",
        "; ".join(ours) + "." if ours else "",
    )


def gate_table() -> pd.DataFrame:
    """Each collapse at 4 bits: accuracies, scores, and the tolerance at which the gate would close."""
    return pd.DataFrame(
        {
            "condition": row["name"],
            "P at 32 bits": percent(row["reference"]),
            "P at 4 bits": percent(row["accuracy"]),
            "I' at 4 bits": number(row["gated"]),
            "I' at 32 bits": " to ".join(number(score) for score in dict.fromkeys(row["full"])),
            "δ used": number(row["tolerance"], 2),
            "gate closes for δ up to": number(row["reference"] - row["accuracy"], 3),
        }
        for row in _collapsed()
    )


def _collapsed() -> list[dict]:
    """The conditions whose 4-bit accuracy §4.2 and §4.3 call a collapse."""
    table = paper.conditions()
    like_cifar10 = metric.gated_index(
        1.0, paper.number(f"{C100}.accuracy.32"), paper.number(f"{C10}.latency_ms.32"), table.at[C100, "threshold_used"]
    )
    resnet = paper.numbers().loc[f"{R18}.gated_index.32"]
    full = {C10: [paper.number(f"{C10}.gated_index.32")], C100: [like_cifar10], R18: [resnet["low"], resnet["high"]]}
    rows = []
    for name in (C10, C100, R18, IN):
        rows.append(
            {
                "name": table.at[name, "label"],
                "reference": paper.number(f"{name}.accuracy.32"),
                "accuracy": paper.number(f"{name}.accuracy.4"),
                "gated": paper.number(f"{name}.gated_index.4"),
                "full": full.get(name, [np.nan]),
                "tolerance": table.at[name, "tolerance"],
            }
        )
    return rows


# --- searched networks against uniform 8 bits ------------------------------------------------------------------------


def searched_cifar10(truth: Landscapes | None) -> Finding:
    """8-8-8-4 against 8-8-8-8, by the paper's numbers and by our records."""
    facts = _searched_cifar10()
    ours = ""
    if truth is not None:
        places = [(land.place(SEARCHED), land.place((8,) * 4)) for land in truth.landscapes.values()]
        ahead = sum(eight < mixed for mixed, eight in places)
        ours = (
            f"[EXP-3](exp3_mixed_precision.ipynb) has every configuration of {len(places)} trained networks. Uniform 8 "
            f"bits scores above {label(SEARCHED)} on {ahead} of them (places {_pairs(places, 1)} against "
            f"{_pairs(places, 0)} of {len(truth.main.configurations)})."
        )
    return Finding(
        f"{label(SEARCHED)} on CIFAR-10",
        f"Uniform 8 bits, in the space but not in the comparison, scores at least {facts['uniform']:.2f} against "
        f"{facts['score']:.3f}.",
        f"The search finds {label(SEARCHED)} with I' = {facts['score']:.3f}, better than the uniform widths it is "
        "compared with: 4 bits and full precision (§4.2, §5).",
        f"This takes the slowest latency that the text allows ({paper.number(f'{C10}.latency_ms.max')} ms) and full "
        f"accuracy at 8 bits. For {label(SEARCHED)} to win, 8 bits "
        f"would have to be below {percent(facts['needed'])}, that is lose {facts['loss']:.1f} pp. At equal latency it "
        f"wins only with a threshold below {facts['threshold']:.3f}; the one used is {facts['used']:.2f}.",
        ASSUMES,
        "It assumes that 8 bits keep the full accuracy, which the text calls stable without a number.",
        "Accuracy and latency at 8 bits on CIFAR-10: a row of Table 1.",
        ours,
    )


def _searched_cifar10() -> dict[str, float]:
    used = paper.conditions().at[C10, "threshold_used"]
    slowest, full = paper.number(f"{C10}.latency_ms.max"), paper.number(f"{C10}.accuracy.32")
    score, mixed = (paper.number(f"{C10}.{quantity}.{label(SEARCHED)}") for quantity in ("gated_index", "accuracy"))
    needed = used + score * metric.latency_penalty(slowest) / 4
    compression = metric.compression_ratio(SEARCHED)
    return {
        "used": used,
        "score": score,
        "uniform": metric.gated_index(4, full, slowest, used),
        "needed": needed,
        "loss": 100 * (full - needed),
        "threshold": (compression * mixed - 4 * full) / (compression - 4),
    }


def searched_imagenet() -> Finding:
    """8-8-8-8-8-16 against uniform 8 bits."""
    score, equal, slower, own = _searched_imagenet()
    haq = paper.number(f"{IN}.gated_index.haq")
    return Finding(
        f"{label(SEARCHED_IN)} on ImageNet",
        f"Uniform 8 bits has the same accuracy and more compression: {equal:.3f} against {score:.3f} at equal latency.",
        f"The search finds {label(SEARCHED_IN)} with I' = {score:.3f}, above HAQ's {haq:.3f} (§4.2).",
        f"Both have a stated accuracy of {percent(paper.number(f'{IN}.accuracy.8'))}. The searched network wins only "
        f"if uniform 8 bits takes at least {slower:.0f} ms where its own score implies {own:.0f} ms.",
        ASSUMES,
        "It assumes that one more layer at 16 bits does not halve the latency. The comparison with HAQ is called "
        "approximate by the paper itself, and rightly: §4.1 and §4.2 differ on what was run.",
        "The latency of uniform 8 bits on ImageNet.",
    )


def _searched_imagenet() -> tuple[float, float, float, float]:
    """Stated I', that of uniform 8 bits at equal latency, the latency at which they tie, the searched network's own."""
    used = paper.conditions().at[IN, "threshold_used"]
    name = label(SEARCHED_IN)
    score, own = paper.number(f"{IN}.gated_index.{name}"), paper.number(f"{IN}.latency_ms.{name}")
    margin = 4 * (paper.number(f"{IN}.accuracy.8") - used)
    return score, margin / metric.latency_penalty(own), 2 ** (margin / score) - 1, own


def searched_table() -> pd.DataFrame:
    """The searched networks and the uniform ones, with the missing row added."""
    rows = [_network_row(row) for _, row in paper.table2().iterrows() if row["condition"] in (C10, IN)]
    slowest, full = paper.number(f"{C10}.latency_ms.max"), paper.number(f"{C10}.accuracy.32")
    _, equal, _, own = _searched_imagenet()
    added = [
        (C10, full, slowest, _searched_cifar10()["uniform"], "at least "),
        (IN, paper.number(f"{IN}.accuracy.8"), own, equal, ""),
    ]
    for condition, accuracy, latency_ms, gated, least in added:
        rows.append(
            {
                "network": paper.conditions().at[condition, "label"],
                "widths": "8 (added here)",
                "C": number(4, 2),
                "P (%)": number(100 * accuracy, 2) + (" (assumed)" if condition == C10 else ""),
                "T (ms)": f"{number(latency_ms, 2)} (assumed)",
                "I'": f"{least}{gated:.3f}",
            }
        )
    return pd.DataFrame(rows).sort_values("network", kind="stable")


def _network_row(row: pd.Series) -> dict[str, str]:
    widths = row["topology"] or (row["method"].upper() if pd.isna(row["bits"]) else f"{row['bits']}")
    return {
        "network": paper.conditions().at[row["condition"], "label"],
        "widths": widths,
        "C": with_origin(number(row["compression"], 2), row["compression_origin"]),
        "P (%)": with_origin(number(100 * row["accuracy"], 2), row["accuracy_origin"]),
        "T (ms)": with_origin(number(row["latency_ms"], 2), row["latency_ms_origin"]),
        "I'": with_origin(number(row["gated_index"]), row["gated_index_origin"]),
    }


# --- compression and size --------------------------------------------------------------------------------------------


def size(truth: Landscapes | None) -> Finding:
    """Compression by layers against compression by weights."""
    sizes = layer_sizes("cifar10")
    nominal, true = metric.compression_ratio(SEARCHED), metric.compression_ratio(SEARCHED, sizes)
    unpadded = metric.compression_ratio(SEARCHED, layer_sizes("cifar10", padding=0))
    score = paper.number(f"{C10}.gated_index.{label(SEARCHED)}")
    other = metric.compression_ratio((8, 8, 4, 8), sizes)
    ours = ""
    if truth is not None:
        land, by_size = truth.main, truth.main.size_weighted()
        ours = (
            f"On the first trained network {label(land.best)} scores highest by layers and {label(by_size.best)} by "
            f"weights; {label(SEARCHED)} takes place {land.place(SEARCHED)} and {by_size.place(SEARCHED)} of "
            f"{len(land.configurations)}."
        )
    return Finding(
        "Compression that does not know size",
        f"{label(SEARCHED)} compresses by {true:.3f} in weights where the formula says {nominal:.2f}.",
        f"The compression of mixed widths is 32 over their mean, layers counted alike (§3.1, Algorithm 1); that of "
        f"{label(SEARCHED)} is {paper.number(f'{C10}.compression.{label(SEARCHED)}')}.",
        f"The layer at 4 bits holds {percent(sizes[-1] / sum(sizes))} of the weights. Against uniform 8 bits it saves "
        f"{percent(1 - 4 / true)} of the memory. Its I' would be {score * true / nominal:.3f} instead of {score:.3f}. "
        f"The same mean with the 4 bits in the third layer, 8-8-4-8, compresses by {other:.2f}: the formula cannot "
        "tell the two apart.",
        DIGITS,
        f"The layer sizes follow from the described network but for its padding, which is not stated; without padding "
        f"the compression is {unpadded:.3f}. Biases and scales are left out of both counts.",
        "Nothing is open: it is a choice of definition. A score meant for memory should count weights.",
        ours,
    )


def size_table() -> pd.DataFrame:
    """Nominal and true compression of some assignments, on SimpleCNN's data sets and on ResNet-18."""
    rows = []
    for dataset, name in SIMPLECNN.items():
        sizes = layer_sizes(dataset)
        for widths in (SEARCHED, (8, 8, 8, 2), (8, 8, 4, 8)):
            rows.append(_size_row(f"SimpleCNN / {name}", widths, widths, sizes))
    sizes = evaluate.num_weights(torchvision.models.resnet18())
    rows.append(_size_row("ResNet-18 / ImageNet-1K", SEARCHED_IN, (8,) * (len(sizes) - 1) + (16,), sizes))
    return pd.DataFrame(rows)


def _size_row(network: str, named: Sequence[int], widths: Sequence[int], sizes: Sequence[int]) -> dict[str, str]:
    odd = [n for width, n in zip(widths, sizes, strict=True) if width != 8]
    return {
        "network": network,
        "widths": label(named),
        "weights not at 8 bits": percent(sum(odd) / sum(sizes)),
        "C, layers alike": number(metric.compression_ratio(named)),
        "C, by weights": number(metric.compression_ratio(widths, sizes)),
    }


def layer_sizes(dataset: str, padding: int = 1) -> list[int]:
    """Weights of SimpleCNN's four layers; ``padding`` of its convolutions is 1 in the book, 0 is the other reading."""
    facts = datasets.info(dataset)
    sizes = evaluate.num_weights(networks.SimpleCNN(facts.num_classes, facts.channels, facts.image_size))
    if padding == 0:
        sizes[2] = sizes[2] // (facts.image_size // 4) ** 2 * (((facts.image_size - 2) // 2 - 2) // 2) ** 2
    return sizes


# --- the search ------------------------------------------------------------------------------------------------------


def search_space(truth: Landscapes | None) -> Finding:
    """How many networks the search scores, and how many there are."""
    budget = search_budget()
    ours = ""
    if truth is not None:
        explored = search.genetic(truth.main.fitness.__getitem__, len(SEARCHED), CHOICES)
        ours = (
            f"With a memory of what it has seen, our run of Algorithm 1 scores {explored.evaluations} different "
            f"networks and ends at {label(explored.best)}, place {truth.main.place(explored.best)} of all."
        )
    return Finding(
        "A search larger than its space",
        f"{budget['asked']} scores are asked for where there are {budget['space']} networks.",
        f"A genetic search of {budget['population']} networks over {budget['generations']} generations finds the "
        "widths of four layers (§4.1, Appendix B).",
        f"Four layers at {budget['choices']} widths are {budget['choices']}⁴ networks; of the scores asked for, at "
        f"most {budget['new']} can be of new ones. Scoring every network once costs "
        f"{budget['asked'] / budget['space']:.1f} times less and cannot miss the best. The search is also guided by "
        "the images on which its result is reported, from one trained network and without a spread.",
        DIGITS,
        "The counts follow from the stated settings; whether repeated networks are scored again is not stated.",
        "Enumeration, which EXP-3 does. For networks of many layers a search is needed, and this one may well serve.",
        ours,
    )


def search_budget() -> dict[str, int]:
    """Counts that follow from the stated settings of Algorithm 1."""
    numbers = (int(_setting("genetic search", item)) for item in ("population", "generations", "elitism", "layers"))
    population, generations, elite, layers = numbers
    choices = len(_setting("genetic search", "bit-widths").split(";"))
    return {
        "population": population,
        "generations": generations,
        "choices": choices,
        "space": choices**layers,
        "asked": population * generations,
        "new": population + (generations - 1) * (population - elite),
    }


# --- units and tolerance ---------------------------------------------------------------------------------------------


def units(found: Sequence[Measured]) -> Finding:
    """The knee with latency in other units."""
    resnet = readings.resnet18()
    gated, raw = sensitivity.over_time_constant(resnet), sensitivity.over_time_constant(resnet, gated=False)
    knees = {unit: metric.knee(resnet.table.index, resnet.gated_index(None, tau)) for unit, tau in UNITS.items()}
    unmoved = [
        each.facts["label"]
        for each in readings.of_paper()
        if each.table["latency_ms"].nunique() > 1 and len(sensitivity.over_time_constant(each)) == 1
    ]
    ours = [readings.of_measured(each) for each in found]
    steady = [each.facts["label"] for each in ours if len(sensitivity.over_time_constant(each)) == 1]
    return Finding(
        "The unit of latency",
        f"In milliseconds the knee of ResNet-18 is {gated[0].knee} bits, in seconds {gated[-1].knee}.",
        "A time constant of 1 ms makes T a pure number; no arbitrary weights remain, and the score carries over from "
        "one architecture to another (§2.1, §3.2).",
        f"By the stated numbers it is {', '.join(f'{knee} bits in {unit}' for unit, knee in knees.items())}. It moves "
        f"from {gated[0].knee} to {gated[-1].knee} bits where the time constant is {gated[0].high:.2f} ms; for the raw "
        f"index, from {raw[0].knee} to {raw[-1].knee} bits at {raw[0].high:.1f} ms. The base of the logarithm does not "
        "matter, the unit does: the constant, and with it the batch size, is a weight between size and speed. "
        f"Elsewhere it may have no effect: by the paper's numbers the knee of {' and '.join(dict.fromkeys(unmoved))} "
        "is the same in every unit.",
        DIGITS,
        "Latencies and 8-bit accuracy of ResNet-18 are stated, 16 bits are said to lose nothing, and the threshold "
        "follows from stated scores. The other conditions assume what the table says.",
        "Nothing is open. A ratio to a reference latency has no unit; [the next page](metric_analysis.ipynb) tries "
        "one.",
        f"The knee is the same in every unit on {' and '.join(steady)}." if steady else "",
    )


def units_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Knee in each unit, and the time constants at which it changes, for every reading."""
    rows = []
    for each in [*readings.of_paper(), *map(readings.of_measured, found)]:
        knees = {unit: metric.knee(each.table.index, each.gated_index(None, tau)) for unit, tau in UNITS.items()}
        stretches = sensitivity.over_time_constant(each)
        turns = "; ".join(f"{a.knee} to {b.knee} bits at {a.high:.2f} ms" for a, b in pairwise(stretches))
        rows.append(
            {"condition": each.label}
            | {unit: f"{knee} bits" for unit, knee in knees.items()}
            | {"changes": turns or "never", "assumes": each.assumes or UNKNOWN}
        )
    return pd.DataFrame(rows)


def tolerance(found: Sequence[Measured]) -> Finding:
    """How far each knee depends on the tolerance."""
    known = {each.label + each.assumes: each for each in readings.of_paper()}
    resnet = next(each for each in known.values() if each.condition == R18)
    holding = next(s for s in sensitivity.over_tolerance(resnet) if s.low < resnet.tolerance < s.high)
    cifar10 = [each for each in known.values() if each.condition == C10]
    flips = [each.full_precision - t for each in cifar10 if (t := sensitivity.crossing_threshold(each)) is not None]
    equal = _equal_latency_flip(cifar10[0])
    ours = [
        f"{each.facts['label']}: {_stretches(sensitivity.over_tolerance(each))}, with {each.tolerance:.2f} stated"
        for each in map(readings.of_measured, found)
    ]
    return Finding(
        "The tolerance and the knee",
        "Most knees hold for nearly every tolerance; that of SimpleCNN on CIFAR-10 may not.",
        "The ranking of the viable widths is stable over a wide range of δ (§3.2); Figure 5 shows it.",
        f"On ResNet-18 the knee is {holding.knee} bits for every δ from {holding.low:.3f} to {holding.high:.3f}, on "
        "ImageNet and CIFAR-100 for nearly every one: stable indeed. On CIFAR-10 it depends on a number the text does "
        f"not give: with the slowest 8-bit latency it allows, 4 bits take over at δ = {flips[0]:.2f}, with equal "
        f"latencies at {equal:.2f}, with the fastest nowhere. The stated δ is {cifar10[0].tolerance:.2f}; "
        f"{resnet.tolerance:.2f}, which the same data set has with the other network, lies beyond both. At equal "
        "latency 4 bits beat 8 exactly when they lose less than half of what 8 bits have above the threshold.",
        ASSUMES,
        "The conditions assume what the table says; the rule for equal latency is algebra.",
        "Table 1's latencies at 8 bits, and the values behind Figure 5.",
        "; ".join(ours) + "." if ours else "",
    )


def tolerance_table(found: Sequence[Measured]) -> pd.DataFrame:
    """For every reading, which knee holds over which tolerances."""
    return pd.DataFrame(
        {
            "condition": each.label,
            "δ stated": number(each.tolerance, 2),
            "knee by δ": _stretches(sensitivity.over_tolerance(each)),
            "4 bits lead below a threshold of": number(_nan(sensitivity.crossing_threshold(each))),
            "assumes": each.assumes or UNKNOWN,
        }
        for each in [*readings.of_paper(), *map(readings.of_measured, found)]
    )


def _equal_latency_flip(reading: Reading) -> float:
    """The tolerance at which 4 bits reach 8 where both take the same time: the threshold is then 2 P(4) - P(8)."""
    return reading.full_precision - (2 * reading.table["accuracy"][4] - reading.table["accuracy"][8])


def _stretches(stretches: Sequence[sensitivity.Stretch]) -> str:
    parts = []
    for each in stretches:
        if round(each.high, 3) > round(each.low, 3):
            parts.append(f"{_knee(each.knee)} from {each.low:.3f} to {each.high:.3f}")
    return "; ".join(parts)


# --- latency ---------------------------------------------------------------------------------------------------------


def latency(found: Sequence[Measured]) -> Finding:
    """What is timed, and how much of it reaches the score."""
    slow, fast = paper.number(f"{R18}.latency_ms.8"), paper.number(f"{R18}.latency_ms.16")
    low, high = paper.number(f"{C10}.latency_ms.min"), paper.number(f"{C10}.latency_ms.max")
    damped = {name: paper.number(f"{name}.latency_penalty_ratio.range") for name in (C10, R18)}
    ours = []
    for each in found:
        mean = readings.of_measured(each).table["latency_ms"]
        ours.append(
            f"{_label(each)}: 8, 4 and 2 bits take {mean[8] / mean[32]:.2f}, {mean[4] / mean[32]:.2f} and "
            f"{mean[2] / mean[32]:.2f} times the 32-bit pass"
        )
    return Finding(
        "What the latency measures",
        f"8, 4 and 2 bits take the same time on ResNet-18, {slow / fast:.2f} times that of 16.",
        "Fewer bits bring latency down with diminishing returns (§3.2); 8 bits come with negligible overhead (§4.2); "
        f"latency is less discriminating on ResNet-18 than on SimpleCNN, {damped[R18]} against {damped[C10]} (§5).",
        "So latency does not fall with the bits, it rises once: what is timed is the simulation of quantization, not "
        f"quantized arithmetic. The slowest width takes {slow / fast:.2f} times the fastest on ResNet-18 and "
        f"{high / low:.2f} times on SimpleCNN; that the logarithm turns this order round is a property of the "
        "logarithm, which damps long latencies more.",
        DIGITS,
        "The latencies are stated. That they are of a simulation is an inference from their being equal; the text "
        "names no kernels. The negligible overhead may be meant of accuracy.",
        "The names of the timed kernels, or a run with integer kernels.",
        "; ".join(ours) + ". Ours is a simulation too, and shows the same shape." if ours else "",
    )


def latency_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Latency by width relative to the fastest, as stated and as measured."""
    rows = []
    for each in [readings.resnet18(), *map(readings.of_measured, found)]:
        latencies = each.table["latency_ms"]
        rows.append(
            {"condition": each.label, "T of the fastest (ms)": number(latencies.min(), 2)}
            | {
                f"{bits} bits": f"{latencies[bits] / latencies.min():.2f}" if bits in latencies else UNKNOWN
                for bits in paper.BITS
            }
        )
    return pd.DataFrame(rows)


def noise(found: Sequence[Measured]) -> Finding:
    """The spread of latency that the spread of I' implies."""
    facts = noise_facts()
    ours = []
    for each in found:
        timed = each.table[each.table["bits"] == 8]["latency_ms"]
        if len(timed) > 1:
            ours.append(f"{_label(each)} {percent(timed.std(ddof=1) / timed.mean(), 1)}")
    return Finding(
        "The noise of the latencies",
        f"The stated spread implies that latency varies by about {percent(facts['latency_relative'], 0)} between "
        "seeds.",
        f"On CIFAR-100 at 8 bits I' is {facts['score']} ± {facts['spread']} over three seeds, while accuracy at 8 bits "
        f"and wider spreads by less than {100 * facts['accuracy_spread']:.1f} pp (§4.2).",
        f"The spread of I' is {percent(facts['relative'], 1)} of its value, and accuracy accounts for at most "
        f"{percent(facts['by_accuracy'], 1)}. The rest must come from the latency: about {facts['latency_spread']:.2f} "
        f"ms, or {percent(facts['latency_relative'], 0)} from seed to seed, of a network that does the same work each "
        f"time. The example that I prefers 4 to 16 bits on CIFAR-100 is a gap of {facts['gap']:.3f}, where the spread "
        f"of the 4-bit accuracy alone moves I by {facts['index_spread']:.2f}.",
        ASSUMES,
        "It assumes that accuracy and latency vary independently, and full accuracy at 8 bits. Three values say little "
        f"about a spread: the 95 % interval runs from {facts['low']:.1f} to {facts['high']:.1f} times what was found.",
        "The three latencies behind the mean.",
        f"The standard deviation of T at 8 bits over seeds, relative to its mean: {', '.join(ours)}." if ours else "",
    )


def noise_facts() -> dict[str, float]:
    """The budget of the spread of I' at 8 bits on CIFAR-100, by first-order propagation of independent errors."""
    known = paper.numbers()
    row = known.loc[f"{C100}.gated_index.8"]
    margin = paper.number(f"{C100}.accuracy.32") - paper.conditions().at[C100, "threshold_used"]
    slowest = float(known.at[f"{C100}.latency_ms.8", "high"])
    accuracy_spread = paper.number("any.accuracy_std.8-and-wider")
    relative, by_accuracy = row["spread"] / row["value"], accuracy_spread / margin
    by_penalty = np.sqrt(relative**2 - by_accuracy**2)
    # log2(T + 1) changes by dT / ((T + 1) ln 2).
    latency_spread = by_penalty * metric.latency_penalty(slowest) * (slowest + 1) * np.log(2)
    four = known.loc[f"{C100}.accuracy.4"]
    degrees = len(_setting("all", "seeds").split(";")) - 1
    return {
        "score": row["value"],
        "spread": row["spread"],
        "accuracy_spread": accuracy_spread,
        "relative": relative,
        "by_accuracy": by_accuracy,
        "latency_spread": latency_spread,
        "latency_relative": latency_spread / slowest,
        "gap": paper.number(f"{C100}.index.4") - paper.number(f"{C100}.index.16"),
        "index_spread": paper.number(f"{C100}.index.4") * four["spread"] / four["value"],
        "low": np.sqrt(degrees / chi2.ppf(0.975, degrees)),
        "high": np.sqrt(degrees / chi2.ppf(0.025, degrees)),
    }


# --- Llama -----------------------------------------------------------------------------------------------------------


def llama_units() -> Finding:
    """The units in which Table 3 was computed."""
    caption, *others = DECODINGS
    fits = [each for each in others if each.bytes_per_second <= RTX_3090_BYTES_PER_S]
    accuracy, index = paper.number(f"{LLAMA}.accuracy.2"), paper.number(f"{LLAMA}.index.2")
    threshold = paper.conditions().at[LLAMA, "threshold_used"]
    # I(4) < I(2) is stated: 2.58 P / (P - threshold) < 70, whatever the units.
    ratio = paper.number(f"{LLAMA}.gated_index.4") / index
    least = threshold / (1 - ratio)
    return Finding(
        "The units of Table 3",
        "The units are not those of Table 1, and the text does not give them.",
        f"Llama at 2 bits has an accuracy of {percent(accuracy, 1)} and I = {index:.1f}; 4 bits have I' = "
        f"{paper.number(f'{LLAMA}.gated_index.4')} (§4.4).",
        f"In those of Table 1 the stated numbers take {caption.latency_ms:.3f} ms a token, or reading the weights at "
        f"{caption.bytes_per_second / 1e12:.0f} TB/s; the paper's GPU has {RTX_3090_BYTES_PER_S / 1e12:.2f}. Of "
        f"{len(others)} other readings {len(fits)} are possible, with "
        f"{', '.join(f'{each.latency_ms:.0f}' for each in others)} ms a token. The scores of Table 3 "
        f"compare with one another, not with Table 1's. Since I is stated to rise from 4 to 2 bits, the accuracy at 4 "
        f"bits lies above {percent(least, 1)}, whatever the units.",
        ASSUMES,
        "That the units are not Table 1's is certain, if a token takes at least the time to read the weights once: the "
        f"{LLAMA_WEIGHTS / 1e9:.2f} billion of the layers and the output matrix, by the dimensions that "
        f"{{cite:t}}`grattafiori2024` give, over the bus of {RTX_3090_BYTES_PER_S / 1e9:.0f} GB/s that "
        "{cite:t}`nvidia2020` gives. Which other units they are is a guess; that one reading comes to "
        f"{DECODINGS[2].latency_ms:.2f} ms, a round number, speaks for it a little.",
        "One latency of Table 3, with its unit.",
    )


# --- the text against itself -----------------------------------------------------------------------------------------


def statements_table() -> pd.DataFrame:
    """Places where the text says two things of one matter, and what the numbers say to it."""
    rows, known = [], _numbers_say()
    for topic, part in paper.statements().groupby("topic", sort=False):
        rows.append(
            {
                "matter": topic,
                "the text": "; ".join(f"{row['says']} ({_place(row)})" for _, row in part.iterrows()),
                "what the numbers say": known.get(topic, "they do not decide"),
            }
        )
    return pd.DataFrame(rows)


def _place(row: pd.Series) -> str:
    if not row["section"]:
        return row["origin"]
    sections = row["section"].split(";")
    return ", ".join(f"§{section}" if section[0].isdigit() else f"App. {section}" for section in sections)


def _numbers_say() -> dict[str, str]:
    """By topic of :func:`quide.experiments.paper.statements`."""
    stated = paper.number(f"{C10}.compression.{label(SEARCHED)}")
    alternatives = {
        widths: metric.compression_ratio(widths) for widths in (SEARCHED, (8, 8, 8, 2), _example_of_an_optimum())
    }
    listed = ", ".join(f"{label(widths)} gives {value:.2f}" for widths, value in alternatives.items())
    mixed, full = (paper.number(f"{C10}.gated_index.{name}") for name in (label(SEARCHED), 32))
    searched_ms = paper.number(f"{C10}.latency_ms.{label(SEARCHED)}")
    llama = paper.conditions().loc[LLAMA]
    c100 = paper.conditions().loc[C100]
    return {
        "searched topology": f"C = {stated} is stated; {listed}",
        "search against full precision": f"{mixed:.3f} is {mixed / full:.2f} times {full:.3f}",
        "latency of SimpleCNN on CIFAR-10": f"{searched_ms:.2f} ms follow from the stated I' and the threshold used; "
        "the range may be meant for uniform widths only",
        "accuracy at 2 bits": f"chance among {llama['num_classes']} answers is {1 / llama['num_classes']:.0%}; "
        "elsewhere the claim agrees with what is stated",
        "knee from MNIST to ImageNet": "the ranking stated for MNIST puts "
        f"{paper.conditions().at['mnist-simplecnn', 'knee_bits']} bits first; from CIFAR on the claim agrees with it",
        "level of the threshold": f"{c100['threshold_used']} is "
        f"{c100['threshold_used'] * c100['num_classes']:.0f} times chance",
        "what is quantized": "4 bits are not the same thing in both, so their knees do not compare",
        "quantizer": "the last place settles it",
        "lowest index": "the order stated for MNIST contradicts the floor; those for CIFAR-10 agree with it",
        "number of conditions": "both hold: Table 1 has five, Llama is the sixth",
    }


def _example_of_an_optimum() -> tuple[int, ...]:
    return tuple(int(bits) for bits in _setting("genetic search", "example of an optimum").split("-"))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _printed(name: str) -> tuple[float, float]:
    """Between which values a printed number was rounded, accuracies as fractions."""
    row = paper.numbers().loc[name]
    scale = 100 if row["unit"] in ("%", "pp") else 1
    return (row["value"] - row["resolution"] / 2) / scale, (row["value"] + row["resolution"] / 2) / scale


def _setting(scope: str, item: str) -> str:
    """A setting of :func:`quide.experiments.paper.protocol`."""
    return str(paper.protocol().set_index(["scope", "item"]).at[(scope, item), "value"])


def _check(statement: str, stated: Sequence[float], found: Sequence[float], digits: int = 2) -> tuple:
    """Whether a printed number and what its sources allow have a value in common."""
    low, high = min(found), max(found)
    shown = f"{low:.{digits + 1}f} to {high:.{digits + 1}f}" if high > low else f"{low:.{digits + 1}f}"
    overlap = low <= stated[1] + 1e-12 and stated[0] - 1e-12 <= high
    return statement, f"{np.mean(stated):.{digits}f}", shown, _verdict(overlap)


def _verdict(holds: bool) -> str:
    return report.REPRODUCED if holds else report.NOT_REPRODUCED


def _order(bits: Sequence[int]) -> str:
    return " > ".join(map(str, bits))


def _pairs(places: Sequence[tuple[int, int]], side: int) -> str:
    return ", ".join(str(place[side]) for place in places)


def _knee(bits: int | None) -> str:
    return "none" if bits is None else f"{bits} bits"


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def _label(found: Measured) -> str:
    return str(paper.conditions().at[found.condition, "label"])
