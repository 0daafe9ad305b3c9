"""A model of association that needs no package and no weights."""

from __future__ import annotations

import numpy as np

from volsam.track.associate import Described, Singles
from volsam.track.lineage import Ints
from volsam.track.observe import Frame


class Stub:
    """Scores by distance and by when in its window a pair is, so that windows matter."""

    window, reach = 4, 20.0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.most = scale, 0

    def describe(self, frame: Frame) -> Described:
        ids = np.unique(frame.labels[frame.labels > 0])
        places = [np.argwhere(frame.labels[0] == n).mean(axis=0) for n in ids]
        position = np.asarray(places, np.float32).reshape(-1, 2)
        return Described(ids.astype(np.uint64), position, position)

    def scores(self, when: Ints, position: Singles, features: Singles) -> Singles:
        self.most = max(self.most, len(when))
        apart = np.abs(position[:, None] - position[None]).sum(axis=2)
        late = when[None] - when[:, None]
        score = (
            np.exp(-apart / self.scale)
            * (1 - when[:, None] / 5)
            * (1 - 0.01 * len(np.unique(when)))
        )
        return np.where((late > 0) & (apart <= self.reach), score, 0).astype(np.float32)
