"""What the attacks share: turns kept as they end, so that a run goes on where it was stopped, and a summary."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from quide.experiments import provenance

LOGS = harness.FOLDER.parent / "_build" / "attacks"
Turn = dict[str, Any]


def resumed(file: Path | None, number: int, attack: Callable[[int], Turn]) -> list[Turn]:
    """The turns 0 to ``number - 1``, each from the line of ``file`` that has it, else made and added there."""
    known = {}
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            try:
                one = json.loads(line)
            except ValueError:  # cut short as the run was stopped
                continue
            known[one["turn"]] = one
    turns = []
    for turn in range(number):
        if turn not in known:
            known[turn] = {"turn": turn, **attack(turn)}
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "a") as log:
                    log.write("\n" + json.dumps(known[turn]))  # the break first: the last line may have been cut short
        turns.append(known[turn])
    return turns


def result(name: str, seed: int, turns: list[Turn], outcomes: tuple[str, ...], bad: tuple[str, ...]) -> dict[str, Any]:
    """Counts by what was attacked, and a line for each turn with one of the ``bad`` outcomes."""
    made = harness.Result(name, str(len(turns)), {name: len(turns), "seed": seed})
    found: dict[str, Counter] = {}
    for one in turns:
        found.setdefault(one["what"], Counter()).update(one["outcomes"])
    rows = [*sorted(found.items()), ("all", sum(found.values(), Counter()))]
    made.tables["Outcomes"] = [{"what": what, **{one: counts[one] for one in outcomes}} for what, counts in rows]
    made.notes = [
        f"{one['what']}, turn {one['turn']}: {', '.join(set(one['outcomes']) & set(bad))} ({one['said']})"
        for one in turns
        if set(one["outcomes"]) & set(bad)
    ]
    return made.to_dict()


def main(
    name: str, number: int, attack: Callable[..., list[Turn]], outcomes: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    """The command of an attack: go on with the run of this seed and code, write its summary and the README."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("number", type=int, nargs="?", default=number)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder of the summary")
    parser.add_argument("--log", type=Path, help="file of the turns; one in _build/attacks by default")
    asked = parser.parse_args()
    log = asked.log or LOGS / f"{name}-{asked.seed}-{provenance.git_commit()}.jsonl"
    found = result(name, asked.seed, attack(asked.number, asked.seed, log=log), outcomes, bad)
    print(harness.render(found))
    print(f"\nWritten: {harness.save(found, asked.results)}, from {log}")
    if asked.results == harness.RESULTS:
        harness.write_readme(harness.SECTIONS, harness.RESULTS, harness.README)
