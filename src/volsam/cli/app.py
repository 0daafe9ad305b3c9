"""Commands of `volsam`; every stage is one command with the same options."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from volsam import __version__
from volsam.cli.annotate import app as annotate
from volsam.cli.models import app as models
from volsam.cli.track import app as track
from volsam.config import Config, load
from volsam.errors import VolsamError
from volsam.stages import STAGES, stage_class

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Segment Anything for microscopy at volume scale.",
)

app.add_typer(annotate, name="annotate")
app.add_typer(models, name="models")
app.add_typer(track, name="track")

ConfigOption = Annotated[str, typer.Option("--config", help="Configuration file, or JSON text.")]
SampleOption = Annotated[str, typer.Option(help="Name of the sample.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    stage: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    config: ConfigOption,
    sample: SampleOption,
    cluster: Annotated[
        str, typer.Option(help="Where blocks run: local, inline or a site file.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="CPU cores to use on this machine.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a failed block.")] = 2,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for another run on these results.")
    ] = 24 * 3600.0,
) -> None:
    """Run one stage of one sample; what is done already is not done again."""
    from volsam.blocks.runner import run_stage
    from volsam.blocks.stage import Job

    # A batch system says so before it kills: leave by the usual way, which ends the workers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if stage not in STAGES:
        raise VolsamError(f"There is no stage {stage!r}; use one of {', '.join(STAGES)}.")
    settings = load(config)
    threads = settings.compute.threads
    run_stage(
        stage_class(stage)(Job(settings, sample)),
        cluster=cluster,
        workers=max(1, workers // threads),
        threads=threads,
        retries=retries,
        wait=wait,
    )


def _samples(config: Config, sample: str | None) -> list[str]:
    if not config.samples:
        raise VolsamError("The configuration has no samples; name an image in its section samples.")
    return [sample] if sample else list(config.samples)


@app.command()
def plan(
    config: ConfigOption,
    sample: Annotated[str | None, typer.Option(help="One sample; all by default.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers to forecast for.")] = 1,
) -> None:
    """Show tiles, bytes and forecast hours; refuse what cannot work. Nothing is run."""
    from volsam.cli.forecast import print_forecast

    settings = load(config)
    for name in _samples(settings, sample):
        print_forecast(settings, name, workers)


@app.command()
def preview(
    config: ConfigOption,
    sample: Annotated[str | None, typer.Option(help="Sample; the first by default.")] = None,
    region: Annotated[
        str | None, typer.Option(help="Box in voxels, e.g. z=10:12,y=0:512,x=0:512.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("preview.png"),
) -> None:
    """Segment one crop and show it as a picture, before the long run."""
    from volsam.cli.preview import write_preview

    settings = load(config)
    write_preview(settings, _samples(settings, sample)[0], region, output)


@app.command()
def clean(
    config: ConfigOption,
    sample: Annotated[str | None, typer.Option(help="One sample; all by default.")] = None,
) -> None:
    """Remove intermediates; results, reports and ledgers stay."""
    from volsam.cli.clean import clean_sample

    settings = load(config)
    for name in _samples(settings, sample):
        freed = clean_sample(settings, name)
        print(f"{name}: {freed / 2**20:.1f} MiB removed")


@app.command()
def summary(config: ConfigOption) -> None:
    """Print where the results are, their scores and how to look at them."""
    from volsam.cli.summary import print_summary

    print_summary(load(config))


@app.command()
def status(
    results: Annotated[Path, typer.Argument(help="Folder of all results.")] = Path("results"),
    config: Annotated[
        str | None, typer.Option(help="Configuration: names the samples that have not begun.")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Print only what failed and why.")
    ] = False,
) -> None:
    """Show how far every sample and stage is; exit code 1 if something failed."""
    from volsam.cli.status import print_status

    if print_status(results, failures, load(config).samples if config else ()):
        raise typer.Exit(1)


@app.command()
def train(
    config: ConfigOption,
    marker: Annotated[Path | None, typer.Option(help="Write what came of it to this file.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a process.")] = 2,
    devices: Annotated[
        int, typer.Option(min=0, help="Processes on this node; 0 is one per GPU.")
    ] = 0,
) -> None:
    """Train a model from annotations; a run that was killed goes on."""
    from volsam.cli.train import train as run_training

    run_training(load(config), marker, threads, devices)


@app.command()
def evaluate(
    config: ConfigOption,
    marker: Annotated[Path | None, typer.Option(help="Write what came of it to this file.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Score models on annotated images, side by side; what is known already is not computed again."""
    from volsam.cli.evaluate import evaluate as run_evaluation

    run_evaluation(load(config), marker, threads)


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="Results of a sample, e.g. results/demo.")],
    screenshot: Annotated[
        Path | None, typer.Option(help="Write a picture of the window and close it.")
    ] = None,
) -> None:
    """Open image and labels in napari."""
    from volsam.cli.view import open_viewer

    open_viewer(folder, screenshot)


@app.command("merge-slices")
def merge_slices(
    labels: Annotated[
        Path, typer.Argument(help="Labels of slices, zyx: OME-Zarr, Zarr, TIFF or HDF5.")
    ],
    output: Annotated[Path, typer.Argument(help="OME-Zarr to write.")],
    method: Annotated[
        str, typer.Option(help="volsam, or micro-sam for its exact result.")
    ] = "volsam",
    gap_closing: Annotated[
        int | None, typer.Option(min=0, help="Slices that may be missing.")
    ] = None,
    min_extent: Annotated[
        int | None, typer.Option(min=0, help="Fewest slices of an object.")
    ] = None,
    unique_ids: Annotated[bool, typer.Option(help="An id occurs in one slice only.")] = False,
    key: Annotated[str | None, typer.Option(help="Array within a Zarr or HDF5 file.")] = None,
) -> None:
    """Merge 2D labels of slices, of whatever origin, into 3D objects."""
    from volsam.cli.merge import merge_file

    merge_file(labels, output, key, method, gap_closing, min_extent, unique_ids)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to write the volume.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed, another volume.")] = 0,
) -> None:
    """Make the demo volume: a synthetic 3D stack of nuclei with known truth."""
    from volsam.demo.generate import write_demo

    write_demo(folder, seed)


@app.command("config-docs")
def config_docs(
    check: Annotated[bool, typer.Option("--check", help="Fail if a file is out of date.")] = False,
) -> None:
    """Write config/README.md and workflow/schemas/config.schema.json from the typed model."""
    from volsam.cli.configdocs import documents

    stale = []
    for path, text in documents().items():
        if check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(str(path))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        raise VolsamError(f"{' and '.join(stale)} differ from the model; run volsam config-docs.")
