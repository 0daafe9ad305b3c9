"""A lineage of ours that a user edited in another tool: whichever of our formats it was saved in."""

from __future__ import annotations

from pathlib import Path

from volsam.errors import VolsamError
from volsam.exchange.geff import read_geff
from volsam.exchange.trackmate import read_trackmate
from volsam.exchange.tracks_table import lineage_of_csv
from volsam.track.lineage import Lineage


def read_edited(path: Path, known: Lineage) -> Lineage:
    """Read an edited lineage, whose objects are among those it was before.

    Raises
    ------
    VolsamError
        If the format is not known, or there are objects that were not there.
    """
    readers = {".csv": lineage_of_csv, ".xml": read_trackmate, ".geff": read_geff}
    if path.suffix not in readers:
        raise VolsamError(
            f"{path} is no edited lineage; give a tracks.csv, a TrackMate file (.xml) or a .geff folder."
        )
    edited = readers[path.suffix](path)
    known.objects.rows(edited.objects.id)  # says which one is unknown
    return edited
