"""HDF5 files: one dataset, chosen by its key."""

from __future__ import annotations

from pathlib import Path

from volsam.errors import VolsamError
from volsam.volume.info import Metadata
from volsam.volume.source import Stored


def open_hdf5(path: Path, key: str | None, level: int) -> Stored:
    """Open a dataset; the attribute ``element_size_um`` (zyx) is its voxel size where present."""
    import h5py

    if level:
        raise VolsamError(f"{path} is HDF5, which has no resolution levels; leave level out or 0.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise VolsamError(
            f"{path} cannot be opened as HDF5 ({' '.join(str(error).split())}); "
            f"it is probably truncated, copy it again from its source."
        ) from None
    found: list[str] = []

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:
            found.append(name)

    if key is None:
        file.visititems(collect)
        if len(found) != 1:
            raise VolsamError(
                f"{path} holds {len(found)} arrays; choose one with key: {candidates(found)}."
            )
        key = found[0]
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        file.visititems(collect)
        raise VolsamError(f"{path} has no array {key!r}; its arrays are {candidates(found)}.")
    size = dataset.attrs.get("element_size_um")
    metadata = Metadata()
    if size is not None and len(size) == 3:
        z, y, x = (float(v) for v in size)
        metadata = Metadata((z, y, x), "micrometer")
    return Stored(
        dataset,
        "hdf5",
        key,
        chunks=dataset.chunks or (),
        sliced=dataset.chunks is None,
        metadata=metadata,
    )


def candidates(names: list[str], limit: int = 8) -> str:
    """A short list for a message."""
    shown = ", ".join(sorted(names)[:limit]) or "none"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
