"""Links of a truth, for objects of another segmentation."""

import numpy as np

from volsam.track.lineage import Objects
from volsam.track.truth import true_links


def test_markers_are_found_by_the_objects_that_cover_them() -> None:
    truth = np.zeros((4, 8, 30), np.uint16)
    found = np.zeros((4, 8, 30), np.uint64)
    for frame in (0, 1):  # a mother, track 7
        truth[frame, 3:5, 3:5] = 7
        found[frame, 2:6, 2:6] = 2**40 + frame
    for frame in (2, 3):  # her daughters, and in the last frame one object for both
        truth[frame, 3:5, 3:5], truth[frame, 3:5, 8:10] = 8, 9
    found[2, 2:6, 2:6], found[2, 2:6, 7:11] = 2**40 + 10, 2**40 + 11
    found[3, 2:6, 2:11] = 2**40 + 20
    for frame in range(4):  # a track that is missed in frame 1
        truth[frame, 3:5, 20:22] = 3
        if frame != 1:
            found[frame, 2:5, 20:22] = 2**40 + 30 + frame
    found[0, 6:8, 25:28] = 2**40 + 99  # nothing
    ids, frames = [], []
    for frame in range(4):
        present = np.unique(found[frame])[1:]
        ids += present.tolist()
        frames += [frame] * len(present)
    n = len(ids)
    objects = Objects.sort(ids, frames, np.zeros((n, 3)), np.ones(n))
    table = np.array([[7, 0, 1, 0], [8, 2, 3, 7], [9, 2, 3, 7], [3, 0, 3, 0]])
    links, known = true_links(objects, lambda t: found[t], table, lambda t: truth[t], range(4))
    named = {(int(a) - 2**40, int(b) - 2**40) for a, b in links}
    assert named == {(0, 1), (1, 10), (1, 11), (30, 32), (32, 33)}
    unknown = {int(i) - 2**40 for i in objects.id[~known]}
    assert unknown == {20, 99}
