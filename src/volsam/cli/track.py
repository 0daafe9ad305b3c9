"""`volsam track`: weights of linking from tracked truth, and corrections from edited lineages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volsam.config import load
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
    start = choose_weights(loaded.track, examples[0].scene)
    found = fit_weights(examples, start, loaded.track, strength)
    found.write(out)
    links = sum(len(one.links) for one in examples)
    print(f"fitted to {links} links of {', '.join(samples)}; use track: {{weights: {out}}}")


@app.command()
def correct(
    config: ConfigOption,
    sample: Annotated[str, typer.Option(help="Name of the sample.")],
    edited: Annotated[
        Path, typer.Argument(help="Edited lineage: tracks.csv, TrackMate XML or GEFF.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Table of corrections; the sample's own by default.")
    ] = None,
) -> None:
    """Keep what was changed in a lineage: added and cut links hold when it is linked again."""
    from volsam.exchange.edited import read_edited
    from volsam.paths import SamplePaths
    from volsam.track.corrections import corrections_between, write_corrections
    from volsam.track.tables import read_lineage

    loaded = load(config)
    if sample not in loaded.samples:
        raise VolsamError(
            f"There is no sample {sample!r} in the configuration; it has {', '.join(loaded.samples)}."
        )
    paths = SamplePaths(loaded.results, sample)
    if not paths.lineage.is_file():
        raise VolsamError(f"Sample {sample} has no lineage ({paths.lineage}); track it first.")
    known = loaded.samples[sample].corrections
    target = out or (Path(known) if known else None)
    if target is None:
        raise VolsamError(
            f"Sample {sample} names no table of corrections; say where with --out, or add corrections: "
            "<file> to the sample."
        )
    before = read_lineage(paths.lineage)
    added, cut = corrections_between(before, read_edited(edited, before))
    write_corrections(target, before.objects, added, cut)
    print(f"{len(added)} links added and {len(cut)} cut: {target}")
    if not known:
        print(f"add corrections: {target} to sample {sample}, and run it again")
