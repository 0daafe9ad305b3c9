"""`volsam annotate`: collect corrected labels, list them, and say what to correct next."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volsam.errors import VolsamError

if TYPE_CHECKING:
    from volsam.annotate.pictures import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Corrected labels: collect them for training, and see what to correct next.",
)

StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the annotations.")]
STORE = Path("annotations")


@app.command()
def add(
    labels: Annotated[
        list[Path],
        typer.Argument(help="Labels: an edited crop, results with --region, a file, GeoJSON, CTC."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="What was labelled: image, crop or results of a sample.")
    ] = None,
    store: StoreOption = STORE,
    region: Annotated[
        str | None, typer.Option(help="Labelled part in voxels, e.g. z=10:11,y=0:512,x=0:512.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Every object is labelled: the rest is background.")
    ] = False,
    ignore_label: Annotated[
        int | None, typer.Option(help="Label that says: unknown, not to be learnt from.")
    ] = None,
    background_label: Annotated[
        int | None, typer.Option(help="Label that says: background.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an annotation of this region.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="Pass over what is annotated already.")
    ] = False,
    axes: Annotated[str | None, typer.Option(help="Order of the image's axes.")] = None,
    key: Annotated[str | None, typer.Option(help="Array within the image file.")] = None,
    level: Annotated[int, typer.Option(min=0, help="Resolution level of the image.")] = 0,
    channel: Annotated[str | None, typer.Option(help="Channel, by name or number.")] = None,
    timepoint: Annotated[int | None, typer.Option(min=0, help="Time point of the image.")] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Label group of a crop, or array within the label file.")
    ] = None,
    label_axes: Annotated[str | None, typer.Option(help="Order of the labels' axes.")] = None,
    limits: Annotated[
        str | None, typer.Option(help="Black and white of the source, e.g. 100,4000.")
    ] = None,
    silver: Annotated[
        bool, typer.Option("--silver", help="Computed truth of a CTC folder, not the gold one.")
    ] = False,
    tool: Annotated[
        str, typer.Option(help="Made with, e.g. micro-sam; by default from the kind of labels.")
    ] = "",
    author: Annotated[str, typer.Option(help="Made by; you by default.")] = "",
    licence: Annotated[
        str, typer.Option(help="Licence of image and labels, for the cards of models.")
    ] = "",
) -> None:
    """Add corrected labels to the annotations."""
    from volsam.annotate.checks import Meaning
    from volsam.annotate.pictures import Settings
    from volsam.annotate.sources import read
    from volsam.annotate.store import AnnotationStore, Duplicate
    from volsam.cli.preview import parse_region

    reading: dict[str, Any] = {
        "axes": axes,
        "key": key,
        "level": level,
        "channel": int(channel) if channel and channel.isdecimal() else channel,
        "timepoint": timepoint,
    }
    settings: Settings = Settings(
        image=image,
        reading=reading,
        region=parse_region(region) if region else None,
        label_key=label_key,
        label_axes=label_axes,
        meaning=Meaning(complete, ignore_label, background_label),
        limits=_limits(limits),
        tool=tool,
        author=author or _user(),
        licence=licence,
        silver=silver,
    )
    annotations = AnnotationStore(store)
    for path in labels:
        for crop in read(path, settings):
            for warning in crop.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            parts = (crop.image, crop.labels, crop.ignore, crop.provenance)
            try:
                added = annotations.add(*parts, replace=replace)
            except Duplicate as error:
                if not skip:
                    raise
                print(f"skipped: {error}", file=sys.stderr)
                continue
            kind = "complete" if added.provenance.complete else "unlabelled pixels are unknown"
            print(f"{added.id}: {added.provenance.objects} objects, {kind}")
    print(f"{len(annotations)} annotations in {store}")


@app.command()
def suggest(
    config: Annotated[str, typer.Option("--config", help="Configuration of a finished run.")],
    sample: Annotated[str, typer.Option(help="Name of the sample.")],
    count: Annotated[int, typer.Option(min=1, help="Crops to suggest.")] = 3,
    size: Annotated[int, typer.Option(min=16, help="Edge of a crop, pixels.")] = 256,
    out: Annotated[Path, typer.Option(help="Folder for the crops.")] = Path("to-correct"),
    store: StoreOption = STORE,
    diversity: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="0: only where it is wrong; 1: only what stands for the rest."
        ),
    ] = 0.5,
    network: Annotated[
        bool, typer.Option(help="Judge uncertainty by the model; otherwise by seams alone.")
    ] = True,
) -> None:
    """Write the crops that are worth correcting next, ready for napari."""
    from volsam.annotate.suggest import suggest as suggest_crops
    from volsam.blocks.stage import Job
    from volsam.config import load

    settings = load(config)
    settings.of_sample(sample)
    found = suggest_crops(
        Job(settings, sample),
        out,
        store,
        count=count,
        size=size,
        balance=diversity,
        network=network,
    )
    for one in found:
        (z, y0, x0), (_, y1, x1) = one.box.start, one.box.stop
        unsure = "" if one.uncertainty != one.uncertainty else f"entropy {one.uncertainty:.3f}, "
        print(
            f"{one.path}: slice {z}, y {y0}:{y1}, x {x0}:{x1} "
            f"({unsure}seams {one.disagreement:.3f})"
        )
    if len(found) < count:
        print(f"There are only {len(found)} crops of {size} pixels left.")
    print(f"Open:  napari --plugin napari-ome-zarr {found[0].path}")
    print("Correct the layer of labels, and save it: File > Save Selected Layers, as corrected.tif")
    print(f"Add:   volsam annotate add corrected.tif --image {found[0].path} --complete")


@app.command("list")
def list_annotations(store: StoreOption = STORE) -> None:
    """List the annotations."""
    from volsam.annotate.store import AnnotationStore

    annotations = list(AnnotationStore(store))
    for one in annotations:
        p = one.provenance
        shape = "x".join(str(n) for n in p.shape)
        kind = "complete" if p.complete else "sparse"
        made = " by ".join(part for part in (p.tool, p.author) if part)
        print(f"{one.id}  {shape}  {p.objects} objects  {kind}  {made}  {p.date[:10]}  {p.source}")
    objects = sum(one.provenance.objects for one in annotations)
    print(f"{len(annotations)} annotations, {objects} objects in {store}")


def _limits(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
        if low < high:
            return low, high
    except ValueError:
        pass
    raise VolsamError(f"Limits {text!r} are not understood; write two rising numbers, 100,4000.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
