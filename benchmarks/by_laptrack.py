"""Links of laptrack on centroids: the peer of ours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volsam.track.lineage import Ids


def laptrack_links(
    ids: Ids,
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    cutoff: float,
    gaps: int,
) -> Ids:
    """Links by squared distance with splitting; an object may be missing for `gaps` frames."""
    import pandas as pd
    from laptrack import LapTrack

    names = [f"x{n}" for n in range(position.shape[1])]
    spots = pd.DataFrame(position, columns=names).assign(frame=frame, id=ids)
    tracker = LapTrack(
        cutoff=cutoff**2,
        gap_closing_cutoff=cutoff**2 if gaps else False,
        gap_closing_max_frame_count=gaps,
        splitting_cutoff=cutoff**2,
    )
    tracks, splits, _ = tracker.predict_dataframe(spots, names, only_coordinate_cols=False)
    tracks = tracks.reset_index(drop=True).sort_values(["track_id", "frame"])
    same = tracks["track_id"].to_numpy()[1:] == tracks["track_id"].to_numpy()[:-1]
    number = tracks["id"].to_numpy()
    links = [np.stack([number[:-1][same], number[1:][same]], axis=1)]
    first, last = (tracks.groupby("track_id")["id"].agg(how) for how in ("first", "last"))
    if len(splits):
        mother, daughter = (splits[f"{role}_track_id"].to_numpy() for role in ("parent", "child"))
        links.append(np.stack([last[mother].to_numpy(), first[daughter].to_numpy()], axis=1))
    return np.concatenate(links).astype(np.uint64)
