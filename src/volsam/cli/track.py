"""`volsam track`: weights of linking from truth, and corrections from edited lineages and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volsam.config import Config, load
from volsam.errors import VolsamError

app = typer.Typer(no_args_is_help=True, help="Lineages: fit weights, keep corrections.")

ConfigOption = Annotated[str, typer.Option("--config", help="Configuration file, or JSON text.")]


@app.command()
def fit(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="File for the weights, for the key track.weights.")],
    strength: Annotated[
        float, typer.Option(min=0.0, help="How strongly the weights of the kind are kept.")
    ] = 1.0,
) -> None:
    """Fit the weights of linking to samples that were tracked and name a truth (`truth_tracks`)."""
    from volsam.blocks.stage import Job
    from volsam.stages.link import example
    from volsam.track.fit import fit as fit_weights
    from volsam.track.link import choose_weights

    loaded = load(config)
    samples = [name for name, sample in loaded.samples.items() if sample.truth_tracks]
    if not samples:
        raise VolsamError(
            "No sample names a tracked truth; add truth_tracks: <folder> to at least one."
        )
    examples = [example(Job(loaded, name)) for name in samples]
    start = choose_weights(examples[0].settings, examples[0].scene)
    found = fit_weights(examples, start, strength)
    found.write(out)
    links = sum(len(one.links) for one in examples)
    print(f"fitted to {links} links of {', '.join(samples)}; use track: {{weights: {out}}}")


@app.command()
def correct(
    config: ConfigOption,
    sample: Annotated[str, typer.Option(help="Name of the sample.")],
    edited: Annotated[
        Path | None, typer.Argument(help="Edited lineage: tracks.csv, TrackMate XML or GEFF.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Edited labels, all frames: merged and split objects are kept."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table of corrections; the sample's own by default.")
    ] = None,
) -> None:
    """Keep what was changed in a lineage or in labels: it holds when the sample is run again."""
    loaded = load(config)
    if sample not in loaded.samples:
        raise VolsamError(
            f"There is no sample {sample!r} in the configuration; it has {', '.join(loaded.samples)}."
        )
    if edited is None and labels is None:
        raise VolsamError("Nothing was edited; give an edited lineage, or labels with --labels.")
    if edited is not None and labels is not None:
        raise VolsamError(
            "Links are corrected between objects as they are then; give --labels alone, run the sample "
            "again, and edit that lineage."
        )
    known = loaded.samples[sample].corrections
    target = out or (Path(known) if known else None)
    if target is None:
        raise VolsamError(
            f"Sample {sample} names no table of corrections; say where with --out, or add corrections: "
            "<file> to the sample."
        )
    if labels is not None:
        _keep_objects(loaded, sample, labels, target)
    if edited is not None:
        _keep_links(loaded, sample, edited, target)
    if not known:
        print(f"add corrections: {target} to sample {sample}, and run it again")


def _keep_links(config: Config, sample: str, edited: Path, target: Path) -> None:
    from volsam.exchange.edited import read_edited
    from volsam.paths import SamplePaths
    from volsam.track.corrected_links import corrections_between, write_corrections
    from volsam.track.tables import read_lineage

    paths = SamplePaths(config.results, sample)
    if not paths.lineage.is_file():
        raise VolsamError(f"Sample {sample} has no lineage ({paths.lineage}); track it first.")
    before = read_lineage(paths.lineage)
    added, cut = corrections_between(before, read_edited(edited, before))
    write_corrections(target, before.objects, added, cut)
    print(f"{len(added)} links added and {len(cut)} cut: {target}")


def _keep_objects(config: Config, sample: str, labels: Path, target: Path) -> None:
    from volsam.blocks.stage import Job
    from volsam.stages.edits import edited_objects
    from volsam.track.correction_table import OF_OBJECTS, read_rows, write_rows

    known = read_rows(target) if target.exists() else []
    found = edited_objects(Job(config, sample), labels, known)
    write_rows(target, found.rows)
    merged, split = (sum(row.action == action for row in found.rows) for action in OF_OBJECTS)
    print(f"{target} now holds {merged} merges and {split} splits of objects")
    if found.undone:
        print(f"{found.undone} that it held before were undone")
    if found.doubt:
        print(
            f"warning: {found.doubt}; if labels of an earlier one were edited, take their rows out of "
            f"{target}, and edit those of the last run"
        )
    if found.untold:
        print(
            f"{found.untold} objects were erased or drawn anew, which is no such correction; see "
            "docs/annotations.md"
        )
