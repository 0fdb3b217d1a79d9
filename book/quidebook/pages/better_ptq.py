"""The page of better quantization: what each rung of the ladder gains, what it costs, and where the knee goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide import stats
from quide.experiments import campaign, ladder, paper, select
from quide.experiments.ladder import ABLATION, BESIDE, DRAWN_FOR, DRAWS, LADDER, MODELS, RUNGS, SIZES, STRANGE, Rung
from quide.experiments.records import Record
from quide.models import registry
from quide.stats import Hits, Interval
from quidebook import report, verdicts
from quidebook.evidence import conditions
from quidebook.report import UNKNOWN, Absent, gathered, tabled
from quidebook.verdicts import SUPPORTS, UNDECIDED

COMMAND = "quide run better_ptq --profile paper"
NO_RECORD = Absent("the ladder", COMMAND)
WIDTHS = ("w8a8", "w4a8", "w4a4", "w3a3", "w2a2")
UNIFORM = {"w8a8": 8, "w4a4": 4, "w3a3": 3, "w2a2": 2}  # those that the index can be asked of
LESSER = 0.01  # of accuracy: a loss up to which nothing counts as lost
HELD = {True: "yes", False: "no", None: "undecided"}
PRINTED = {  # of the rungs; the others are printed as records have them
    "the paper's": "our reading of the paper's",
    "scale a channel": "scale per channel",
    "least squares, scale a tensor": "least squares, scale per tensor",
}
Key = tuple[str, str]  # model and data set
SUBJECT: Key = ("resnet20", "cifar10")
DEPTHWISE: Key = ("mobilenetv2", "cifar10")


class LadderRecords:
    """The records there are: by network and rung, of one seed; and of calibration sets."""

    def __init__(self, seed: int = 0):
        there = [one for one in select.known_in_full("ladder") if one.spec.seed == seed]
        self.rungs = {(_key(record), record.spec.details["rung"]): record for record in there}
        self.networks = [model for model in MODELS if any(key == model for key, _ in self.rungs)]
        self.draws = next(iter(select.known("calibration_draws")), None)

    def __bool__(self) -> bool:
        return SUBJECT in self.networks

    @property
    def used(self) -> list[Record]:
        """All of them."""
        return [*self.rungs.values(), *([self.draws] if self.draws else [])]

    def of(self, model: Key, rungs: Sequence[Rung] = LADDER) -> dict[str, Record]:
        """What is known of a network, by rung, in the order of the ladder."""
        return {rung.name: self.rungs[model, rung.name] for rung in rungs if (model, rung.name) in self.rungs}


def _key(record: Record) -> Key:
    return record.spec.model, record.spec.dataset


def run(seeds: Sequence[int], profile: str) -> None:
    """Every run of the page where there is no record, at profile ``paper``; what cannot be had is said to be absent."""
    for line in campaign.attempt(ladder.wanted(seeds[:1]) if profile == "paper" else ()):
        report.say(line)


def printed(rung: str) -> str:
    """A rung as printed."""
    return PRINTED.get(rung, rung)


def title(model: Key) -> str:
    """A network as printed."""
    return f"{registry.row(*model).title}, {conditions.NAMES[model[1]]}"


def hits(record: Record, width: str) -> Hits | None:
    """Which test images are right at a width; None where the rung was not tried at it."""
    packed = record.values["correct"].get(width)
    return None if packed is None else Hits.unpacked(packed)


def lost(record: Record, width: str) -> Interval | None:
    """Change from full precision in points, paired."""
    found = hits(record, width)
    return None if found is None else report.scaled(found.change(hits(record, "32")))


def gained(known: LadderRecords, model: Key, rung: Rung, width: str) -> Interval | None:
    """Change from the rung that this one adds to, in points, paired."""
    one, below = known.rungs.get((model, rung.name)), known.rungs.get((model, rung.below))
    if one is None or below is None or hits(one, width) is None or hits(below, width) is None:
        return None
    return report.scaled(hits(one, width).change(hits(below, width)))


# --- the ladder ------------------------------------------------------------------------------------------------------


@tabled
def ladder_table(known: LadderRecords, model: Key = SUBJECT) -> Iterable[dict]:
    """Accuracy of a network on each rung, by width."""
    for rung, record in known.of(model).items():
        shown = {width: record.values["accuracy"].get(width, np.nan) for width in WIDTHS}
        yield {"rung": printed(rung)} | {width.upper(): report.percent(value) for width, value in shown.items()}


@tabled
def step_table(known: LadderRecords, model: Key = SUBJECT) -> Iterable[dict]:
    """What each rung adds to the one below it, what that takes, and where it leaves the knee."""
    for rung in LADDER:
        record = known.rungs.get((model, rung.name))
        if record is None:
            continue
        knee = knee_of(record)
        yield {
            "rung": printed(rung.name),
            "added to": printed(rung.below) or UNKNOWN,
            "W4A4 (pp)": _shown(gained(known, model, rung, "w4a4")),
            "W4A8 (pp)": _shown(gained(known, model, rung, "w4a8")),
            "seconds": f"{record.values['seconds']['w4a4']:,.0f}",
            "knee": UNKNOWN if knee is None else f"{knee[0]} bits ({knee[1]:.0%})",
        }


def _shown(change: Interval | None) -> str:
    return UNKNOWN if change is None else report.with_interval(change)


@cache
def _knee(packed: tuple[str, ...], bits: tuple[int, ...], tolerance: float, classes: int) -> tuple[int, float]:
    correct = np.stack([Hits.unpacked(text).correct for text in packed])[None]
    found = stats.bootstrap_knee(
        correct, np.ones(len(bits)), bits, tolerance=tolerance, num_classes=classes, repeats=500
    )
    best = max(found.probability, key=found.probability.get)
    return best, found.probability[best]


def knee_of(record: Record) -> tuple[int, float] | None:
    """The knee of I' among the uniform widths at equal latency, with its bootstrap probability; None where the rung was
    not tried at all of them."""
    texts = record.values["correct"]
    if not set(UNIFORM) <= set(texts):
        return None
    facts = paper.conditions().loc[registry.row(*_key(record)).condition]
    packed = (texts["32"], *(texts[width] for width in UNIFORM))
    return _knee(packed, (32, *UNIFORM.values()), float(facts["tolerance"]), int(facts["num_classes"]))


def answer(known: LadderRecords) -> Mapping[str, object] | Absent:
    """Facts: what the paper's recipe and the best PTQ rung keep of the subject at 4 bits; the knees."""
    if not known or "the paper's" not in known.of(SUBJECT):
        return NO_RECORD
    there = known.of(SUBJECT)
    plain = there["the paper's"]
    trained = {rung.name for rung in LADDER if rung.epochs}
    best = max((name for name in there if name not in trained), key=lambda name: there[name].values["accuracy"]["w4a4"])
    return {
        "network": title(SUBJECT),
        "full": plain.values["accuracy"]["32"],
        "plain": plain.values["accuracy"]["w4a4"],
        "best": best,
        "careful": there[best].values["accuracy"]["w4a4"],
        "plain_knee": knee_of(plain)[0],
        "knee": knee_of(there[best])[0],
        "images": plain.values["images"],
        "minutes": there[best].values["seconds"]["w4a4"] / 60,
        "calibration": plain.spec.details["calibration_size"],
    }


def figure_ladder(known: LadderRecords) -> tuple[Figure, str]:
    """A figure and what is seen: the loss of accuracy on each rung, at W4A8 and W4A4."""
    networks = [one for one in known.networks if one == SUBJECT or len(known.of(one)) > 1]  # one rung is no ladder
    figure, axes = report.panels(len(networks), width=8.0, height=3.6, sharey=True)
    names, words = [rung.name for rung in LADDER], []
    for axis, model in zip(axes, networks, strict=True):
        there = known.of(model)
        for width, style, colour in (("w4a8", "o-", report.BLUE), ("w4a4", "s--", report.ORANGE)):
            changes = {name: lost(record, width) for name, record in there.items()}
            changes = {name: change for name, change in changes.items() if change is not None}
            places, middle = [names.index(name) for name in changes], [one.estimate for one in changes.values()]
            axis.plot(middle, places, style, color=colour, label=width.upper(), markersize=4)
            words.append(
                f"{title(model)} {width.upper()}: "
                + ", ".join(f"{printed(name)} {one.estimate:.1f}" for name, one in changes.items())
            )
        axis.axvline(0, color=report.GREY, linewidth=0.8)
        axis.set(title=title(model).replace(", ", "\n"), xlabel="pp from FP32")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks([-50, -10, -1, 0], ["-50", "-10", "-1", "0"])
    axes[0].set_yticks(range(len(names)), map(printed, names))
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower left")
    return figure, "Change in points on each rung. " + "; ".join(words) + "."


# --- what each rung is -----------------------------------------------------------------------------------------------


def figure_ideas() -> tuple[Figure, str]:
    """A figure and what is seen: the error of a range on a bell-shaped tensor; the variable that rounds a weight."""
    figure, (left, right) = report.panels(2, width=7.6, height=3.0)
    values = np.random.default_rng(0).standard_normal(20_000)
    shares, reach, levels = np.linspace(0.2, 1, 81), np.abs(values).max(), 7
    steps = shares * reach / levels
    errors = [np.mean((np.clip(np.round(values / s), -levels, levels) * s - values) ** 2) for s in steps]
    best = int(np.argmin(errors))
    left.plot(100 * shares, errors, "-", color=report.BLUE)
    left.plot([100 * shares[best]], [errors[best]], "o", color=report.ORANGE, label="least squares")
    left.plot([100], [errors[-1]], "s", color=report.GREY, label="min-max")
    left.set(xlabel="range (% of the largest value)", ylabel="mean squared error", title="4 bits: a narrower range")
    left.legend()
    variables = np.linspace(-4, 4, 200)
    up = np.clip(1.2 / (1 + np.exp(-variables)) - 0.1, 0, 1)
    right.plot(variables, up, "-", color=report.BLUE, label="share of a step added")
    for beta, style in ((20, ":"), (4, "--"), (2, "-.")):
        right.plot(variables, 1 - np.abs(2 * up - 1) ** beta, style, color=report.ORANGE, label=f"penalty, beta {beta}")
    right.set(xlabel="variable of a weight", title="AdaRound: pushed to 0 or 1")
    right.legend(fontsize=7)
    return figure, (
        f"Left: error against range for normal values; min-max {errors[-1]:.4f}, least {errors[best]:.4f} at "
        f"{100 * shares[best]:.0f} % of the largest. Right: the rectified sigmoid from 0 to 1, and penalties that are "
        "zero at both ends."
    )


@tabled
def learned_table(known: LadderRecords, width: str = "w4a4") -> Iterable[dict]:
    """What learns to round checked of itself: how many variables decided, and the error against rounding to nearest."""
    for model in known.networks:
        for name in ("AdaRound", "BRECQ"):
            record = known.rungs.get((model, name))
            checks = record.values["checks"].get(width) if record else None
            if checks:
                yield {
                    "network": title(model),
                    "rung": name,
                    "decided, least of a part": report.percent(checks["closed"], 1),
                    "error against nearest": f"{checks['hard'] / checks['nearest']:.2f}",
                    "seconds": f"{record.values['seconds'][width]:,.0f}",
                    "threads": str(record.values["threads"]),
                }


@gathered
def side_facts(known: LadderRecords, width: str = "w4a8") -> Iterator[dict[str, object]]:
    """Of each network with one scale per tensor: what equalization and absorbed biases add, in points, paired."""
    for model in known.networks:
        changes = [gained(known, model, rung, width) for rung in BESIDE[1:]]
        if None not in changes:
            yield {"title": title(model), "equalized": changes[0], "absorbed": changes[1]}


@tabled
def ablation_table(known: LadderRecords) -> Iterable[dict]:
    """LSQ at W4A4 with batch norms treated in three ways."""
    names = {"LSQ": "left, estimated anew, folded in the end"}
    names |= {rung.name: rung.name.partition("batch norms ")[2] for rung in ABLATION}
    for rung, words in names.items():
        if (record := known.rungs.get((SUBJECT, rung))) is not None:
            yield {
                "batch norms": words,
                "top-1": report.percent(record.values["accuracy"]["w4a4"]),
                "change from FP32 (pp)": _shown(lost(record, "w4a4")),
                "epochs": str(record.spec.details["epochs"]["w4a4"]),
            }


# --- calibration -----------------------------------------------------------------------------------------------------


@tabled
def draws_table(known: LadderRecords) -> Iterable[dict]:
    """Accuracy by calibration set: the mean and the extremes of its draws."""
    if known.draws is None:
        return
    scores = known.draws.values["accuracy"]
    for name in (*map(str, SIZES), *STRANGE):
        drawn = [scores[f"{name}, {draw}"] for draw in range(DRAWS)]
        size = known.draws.spec.details["strange_images"]
        yield {
            "calibration images": f"{int(name):,}" if name.isdecimal() else f"{size} of {name}",
            "mean top-1": report.percent(float(np.mean(drawn))),
            "worst draw": report.percent(min(drawn)),
            "best draw": report.percent(max(drawn)),
            "draws": str(DRAWS),
        }


def draws_facts(known: LadderRecords) -> Mapping[str, object] | Absent:
    """Facts: the spread of draws of one image and of 512, in points; and what digits and noise cost against 512."""
    if known.draws is None:
        return Absent("calibration sets", COMMAND)
    scores = known.draws.values["accuracy"]
    by = {name: np.array([scores[f"{name}, {draw}"] for draw in range(DRAWS)]) for name in (*map(str, SIZES), *STRANGE)}
    base = by["512"].mean()
    return {
        "title": title(DRAWN_FOR),
        "one": 100 * np.ptp(by["1"]),
        "many": 100 * np.ptp(by["512"]),
        "first": 100 * (by["1"].mean() - base),
        "most": 100 * (by["5000"].mean() - base),
        "noise": 100 * (by[STRANGE[0]].mean() - base),
        "digits": 100 * (by[STRANGE[1]].mean() - base),
    }


# --- claims ----------------------------------------------------------------------------------------------------------


@tabled
def eight_table(known: LadderRecords) -> Iterable[dict]:
    """The white paper's "8 bits cost nearly nothing", on every network there is."""
    for model in known.networks:
        for rung in ("the paper's", "image at 8 bits"):
            record = known.rungs.get((model, rung))
            if record is None:
                continue
            change = lost(record, "w8a8")
            yield {
                "network": title(model),
                "rung": printed(rung),
                "within 1 pp": HELD[_holds(change)],
                "change at W8A8 (pp)": report.with_interval(change),
                "images": f"{record.values['images']:,}",
            }


def _holds(change: Interval) -> bool | None:
    """Whether a change loses at most :data:`LESSER`; None where its interval does not tell."""
    return True if change.low >= -100 * LESSER else False if change.high < -100 * LESSER else None


def _judged(*held: bool | None) -> str:
    """Of a claim that has to hold in every case: an interval that does not tell supports nothing."""
    return verdicts.held(False if False in held else True if held and None not in held else None)


@tabled
def verdict_table(known: LadderRecords) -> Iterable[dict]:
    """What is claimed of better quantization, and of 8 bits as the knee, judged on these networks."""
    if not known:
        return
    careful = [known.rungs.get((model, "image at 8 bits")) for model in known.networks]
    careful = [_holds(lost(record, "w8a8")) for record in careful if record is not None]
    yield {
        "claim": "PTQ at 8 bits costs nearly nothing (white paper)",
        "verdict": _judged(*careful),
        "reason": f"within 1 pp on {careful.count(True)} of {len(careful)} networks",
    }
    better = [gained(known, model, RUNGS["AdaRound"], "w4a4") for model in known.networks]
    better = [change for change in better if change is not None]
    yield {
        "claim": "AdaRound is at least as good as rounding to nearest at 4 bits",
        "verdict": _judged(*map(_holds, better)),
        "reason": "to within 1 pp; gains " + "; ".join(f"{report.with_interval(change)} pp" for change in better),
    }
    yield from _equalized(known)
    there = known.of(SUBJECT)
    if "LSQ" in there:
        reached = [lost(there["LSQ"], width) for width in ("w4a4", "w2a2")]
        best = max(
            (record.values["accuracy"]["w2a2"] for name, record in there.items() if name != "LSQ"), default=np.nan
        )
        yield {
            "claim": "Training reaches fewer bits than PTQ (white paper)",
            "verdict": verdicts.held(there["LSQ"].values["accuracy"]["w2a2"] > best),
            "reason": f"{title(SUBJECT)}: W2A2 {report.with_interval(reached[1])} pp from FP32, best PTQ "
            f"{report.percent(best)}",
        }
    knees = {name: knee_of(record) for name, record in there.items()}
    at_eight = [name for name, knee in knees.items() if knee and knee[0] == 8]
    judged = [name for name, knee in knees.items() if knee]
    moved = [name for name in judged if name not in at_eight]
    yield {
        "claim": "8 bits is the knee of complex networks (QuIDE)",
        "verdict": SUPPORTS if not moved else UNDECIDED,
        "reason": f"{title(SUBJECT)}, equal latency: 8 bits on {len(at_eight)} of {len(judged)} rungs"
        + (f"; fewer bits by {', '.join(map(printed, moved))}" if moved else ""),
    }


def _equalized(known: LadderRecords) -> Iterator[dict]:
    """Of the network that equalization is for: rescued where 8 bits lose little with it and more without it."""
    there = known.of(DEPTHWISE, BESIDE[:2]).values()
    if len(there) == 2:
        before, after = (lost(record, "w8a8") for record in there)
        held = _holds(after) if _holds(before) is False else None
        yield {
            "claim": "Equalization rescues depthwise networks with one scale per tensor (white paper)",
            "verdict": SUPPORTS if held else verdicts.held(held),  # theirs are wider
            "reason": f"{title(DEPTHWISE)}, W8A8: {report.with_interval(before)} pp from FP32 without it, "
            f"{report.with_interval(after)} with it",
        }


def depthwise_facts(known: LadderRecords) -> Mapping[str, object] | Absent:
    """Facts: the depthwise network, how long it was trained, its accuracy in full precision, and at W4A8 with one scale
    per tensor, as it is and equalized."""
    if len(there := known.of(DEPTHWISE, BESIDE[:2]).values()) < 2:
        return Absent(title(DEPTHWISE), COMMAND)
    plain, equalized = there
    return {
        "network": title(DEPTHWISE),
        "epochs": registry.row(*DEPTHWISE).recipe.epochs,
        "full": plain.values["accuracy"]["32"],
        "plain": plain.values["accuracy"]["w4a8"],
        "equalized": equalized.values["accuracy"]["w4a8"],
    }


def missing(known: LadderRecords) -> Mapping[str, object]:
    """Facts: which rungs have no record, by network."""
    of = {model: [rung for rung in asked(model) if (model, rung) not in known.rungs] for model in MODELS}
    words = [
        f"{title(model)}: {'all' if len(rungs) == len(asked(model)) else ', '.join(map(printed, rungs))}"
        for model, rungs in of.items()
        if rungs
    ]
    words += [] if known.draws else [f"{title(DRAWN_FOR)}: calibration sets"]
    return {"what": "; ".join(words) or "none", "command": COMMAND}


def asked(model: Key) -> list[str]:
    """The rungs that are to be run of a network."""
    return [one.spec.details["rung"] for one in ladder.wanted(models=[model]) if one.spec.kind == "ladder"]


def published_table() -> pd.DataFrame:
    """What others report on ImageNet."""
    table = paper.published_ptq()
    shown = {width.upper(): [report.number(value, 2) for value in table[width]] for width in WIDTHS[:4]}
    return pd.DataFrame(
        {"network": table.network, "recipe": table.recipe}
        | shown
        | {"full precision": [report.number(value, 2) for value in table.full], "source": table.source}
    )
