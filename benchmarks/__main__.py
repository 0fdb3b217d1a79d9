"""``python -m benchmarks``: run them, print their tables, keep the results, and bring the README up to date."""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import harness

Benchmark = StrEnum("Benchmark", harness.RATIOS)


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
    try:
        for name in [] if tables else names or Benchmark:
            typer.echo(f"\n## {name}\n")
            options = {"compiled": compiled} if name == "sweep" else {}
            result = import_module(f"benchmarks.{name}").run(size, progress=True, **options).to_dict()
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
