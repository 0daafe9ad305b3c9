"""`volsam models`: which trained models there are, which is in use, and their way in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volsam.errors import VolsamError

app = typer.Typer(no_args_is_help=True, help="Trained models: list, promote, export, import.")

NameArgument = Annotated[str, typer.Argument(help="Name of the model.")]
RootOption = Annotated[Path, typer.Option("--models", help="Folder of trained models.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="Version; the promoted one by default.")
]
ROOT = Path("models")


@app.command("list")
def list_models(root: RootOption = ROOT) -> None:
    """Show every version, the promoted one with a star."""
    store = _store(root)
    for name in store.names():
        entries = store.history(name)
        current = entries[-1]["version"] if entries else None
        for version in store.versions(name):
            star = "*" if version.number == current else " "
            print(f"{star} {name} {version.number}  {_summary(version.description())}".rstrip())
    if not store.names():
        print(f"no trained models in {root}")


@app.command()
def show(name: NameArgument, version: VersionOption = None, root: RootOption = ROOT) -> None:
    """Print the card of a model and how it came to be in use."""
    from volsam.models.card import card_text

    store = _store(root)
    versions = store.versions(name)
    if version is None and versions and not store.history(name):
        version = versions[-1].number
        print(f"No version of {name} is in use; this is the newest, choose by --version.\n")
    print(card_text(_version(store, name, version).description()))
    for entry in store.history(name):
        print(f"promoted {entry.get('when')}: version {entry['version']}, {entry.get('why')}")


@app.command()
def promote(
    name: NameArgument,
    version: Annotated[int, typer.Argument(min=1, help="Version to put to use.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "by hand",
    root: RootOption = ROOT,
) -> None:
    """Put a version to use: `model: <name>` in a configuration then means it."""
    found = _store(root).promote(name, version, reason)
    print(f"{name} is version {found.number} now")


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name of the model, or `embedded`.")],
    output: Annotated[
        Path, typer.Argument(help="something.zip for BioImage.IO, something.pt for micro-sam.")
    ],
    version: VersionOption = None,
    author: Annotated[
        list[str] | None, typer.Option(help="Who made the model; may be given again.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="SPDX identifier of the model's licence.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Image to test and show the package with.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Channel of the image, by name or number.")
    ] = None,
    root: RootOption = ROOT,
) -> None:
    """Write a model for other programs."""
    path = _description(root, name, version)
    if output.suffix == ".pt":
        from volsam.models.checkpoint import read_checkpoint, read_json
        from volsam.models.export import export_checkpoint
        from volsam.models.model import Source

        source = Source.described(path)
        export_checkpoint(output, read_json(path), read_checkpoint(*source.files))
        print(output)
        return
    from volsam.exchange.bioimageio import export_package, has_validator, validate_package

    picture = None if image is None else _middle(image, channel)
    export_package(path, output, authors=author or (), licence=licence, image=picture)
    print(output)
    if has_validator():
        validate_package(output)
        print("passes the test of bioimageio.core")
    else:
        print("not tested: pip install 'volsam[bioimageio]', then bioimageio test", output)


@app.command("import")
def import_model(
    package: Annotated[Path, typer.Argument(help="BioImage.IO package of volsam or micro-sam.")],
    name: NameArgument,
    root: RootOption = ROOT,
) -> None:
    """Make a version from a package; the first version of a name is promoted."""
    from volsam.exchange.bioimageio_import import import_package

    version = import_package(package, root, name)
    store = _store(root)
    if not store.history(name):
        store.promote(name, version.number, f"the first version, from {package.name}")
    print(f"{name} version {version.number}: {version.folder}")


def _store(root: Path) -> Any:
    from volsam.models.store import ModelStore

    return ModelStore(root)


def _version(store: Any, name: str, number: int | None) -> Any:
    if number is not None:
        return store.version(name, number)
    if numbers := [str(found.number) for found in store.versions(name)]:
        if found := store.promoted(name):
            return found
        raise VolsamError(
            f"No version of model {name} is in use, so state one: --version {', '.join(numbers)}."
        )
    store.find(name)  # says what there is


def _description(root: Path, name: str, number: int | None) -> Path:
    if name == "embedded":
        from volsam.models.model import EMBEDDED

        return EMBEDDED / "model.json"
    path: Path = _version(_store(root), name, number).path
    return path


def _summary(description: dict[str, Any]) -> str:
    scores = (description.get("metrics") or {}).get("after") or {}
    told = [f"{key} {value:.3f}" for key, value in scores.items() if isinstance(value, float)]
    facts = (description.get("created", "")[:10], f"from {description.get('parent') or 'scratch'}")
    return ", ".join([*facts, description.get("licence") or "no licence", *told[:4]])


def _middle(path: Path, channel: str | None) -> Any:
    """The middle slice of a channel of an image, which must be named if there are several."""
    from volsam.geometry import Box
    from volsam.volume.source import open_volume

    volume = open_volume(path, channel=channel)
    depth, height, width = volume.info.shape
    if not depth * height * width:
        raise VolsamError(f"{path} is empty; give another image.")
    middle = depth // 2
    return volume.read(Box((middle, 0, 0), (middle + 1, height, width)))[0]
