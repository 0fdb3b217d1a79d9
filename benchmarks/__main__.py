"""``python -m benchmarks``: run them, print their tables, keep the results, and bring the README up to date."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import harness, memory, precision, resnet18, search, sweep, training


class Benchmark(StrEnum):
    """What can be asked for."""

    sweep = "sweep"
    resnet18 = "resnet18"
    training = "training"
    precision = "precision"
    memory = "memory"
    search = "search"


def main(
    names: Annotated[list[Benchmark] | None, typer.Argument(help="Which to run; all by default.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = harness.RESULTS,
    readme: Annotated[Path, typer.Option(help="File whose results section is written.")] = harness.README,
    compiled: Annotated[bool, typer.Option(help="Also what torch.compile makes of the quantized networks.")] = False,
    tiny: Annotated[bool, typer.Option(help="A few images, to see that all runs; nothing is kept.")] = False,
    tables: Annotated[bool, typer.Option(help="Only write the README's section anew from the results.")] = False,
) -> None:
    """Measure QuIDE beside its peers: one bit-width of the sweep, training and its arithmetic, memory, the search."""
    size = harness.TINY if tiny else harness.FULL
    runs = {
        Benchmark.sweep: lambda: sweep.run(size, compiled, progress=True),
        Benchmark.resnet18: lambda: resnet18.run(size, progress=True),
        Benchmark.training: lambda: training.run(size, progress=True),
        Benchmark.precision: lambda: precision.run(size, progress=True),
        Benchmark.memory: lambda: memory.run(size, progress=True),
        Benchmark.search: lambda: search.run(size, progress=True),
    }
    try:
        for name in [] if tables else names or runs:
            typer.echo(f"\n## {name}\n")
            result = runs[name]().to_dict()
            typer.echo(harness.render(result))
            if not tiny:
                typer.echo(f"\nWritten: {harness.save(result, results)}")
        if not tiny:
            harness.write_readme(harness.SECTIONS, results, readme)
            typer.echo(f"Written: {readme}")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    typer.run(main)
