"""Tables of prompts: what they say, what is refused, and the links that they ask for."""

from pathlib import Path

import numpy as np
import pytest

from volsam.errors import VolsamError
from volsam.track.lineage import Lineage, Objects
from volsam.track.prompted import Prompt, PromptTable, prompted_links, read_prompts

GOOD = """frame,track,kind,y,x,y0,x0,y1,x1,positive,parent
0,1,box,,,5,6,15,18,,
0,1,point,9,2,,,,,0,
2,1,divide,,,,,,,,
5,3,point,20,21.5,,,,,1,1

3,2,point,4,4,,,,,,1
7,2,end,,,,,,,,
"""


def table(folder: Path, text: str) -> PromptTable:
    path = folder / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return read_prompts(path)


def test_what_a_table_says(tmp_path: Path) -> None:
    found = table(tmp_path, GOOD)
    assert found.prompts == {
        0: {1: (Prompt((5, 6, 15, 18)), Prompt((9, 2), False))},
        3: {2: (Prompt((4, 4)),)},
        5: {3: (Prompt((20, 21.5)),)},
    }
    assert (found.last, found.parent) == ({1: 2, 2: 7}, {3: 1, 2: 1})
    assert found.first() == {1: 0, 2: 3, 3: 5}
    assert list(found.prompts) == [0, 3, 5]


def test_columns_that_are_not_needed_may_be_left_out(tmp_path: Path) -> None:
    found = table(tmp_path, "x, y,kind,frame,track\n3,4,point,0,7\n")
    assert found.prompts == {0: {7: (Prompt((4, 3)),)}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no column frame"),
        ("frame,track,kind,size\n", "column 'size'"),
        ("frame,track,kind,x,x\n", "a column stands twice"),
        ("frame,track,kind\n0,1,end\n", "has no box and no point; prompt at least one"),
        ("frame,track,kind\n0,1,circle\n", "Line 2 .* has kind 'circle'"),
        ("frame,track,kind,y,x\n0,1,point,4,\n", "has '' for x"),
        ("frame,track,kind,y,x\n0,1,point,4,inf\n", "has 'inf' for x"),
        ("frame,track,kind,y,x\n0,0,point,4,4\n", "has '0' for track"),
        ("frame,track,kind,y,x\n0.5,1,point,4,4\n", "has '0.5' for frame"),
        ("frame,track,kind,y,x\n0,1,point,4,4,4\n", "more cells"),
        ("frame,track,kind,y,x\n0,1,end,4,\n", "has a y, which a end|has a y"),
        ("frame,track,kind,y0,x0,y1,x1\n0,1,box,4,4,4,9\n", "empty box"),
        ("frame,track,kind,y,x,positive\n0,1,point,4,4,yes\n", "'yes' for positive"),
        ("frame,track,kind,y,x,positive\n0,1,point,4,4,0\n", "points of the background only"),
        ("frame,track,kind,y0,x0,y1,x1,positive\n0,1,box,1,1,9,9,0\n", "box of background"),
        ("frame,track,kind,y,x\n0,1,point,4,4\n3,2,end,,\n", "ends track 2, which has no"),
        (GOOD + "9,2,point,4,4,,,,,,1\n", "track 2 in frame 9, after its end in frame 7"),
        (GOOD + "8,2,end,,,,,,,,\n", "ends track 2 again"),
        (GOOD + "0,1,box,,,5,6,15,18,,\n", "second box of track 1"),
        (GOOD + "6,3,point,1,1,,,,,1,2\n", "second parent"),
        (GOOD + "8,4,point,1,1,,,,,1,2\n", "track 2 as parent of track 4"),
        (GOOD + "2,4,point,1,1,,,,,1,1\n", "starts track 4 in frame 2, and its parent 1"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(VolsamError, match=fault) as error:
        table(tmp_path, text)
    assert str(error.value).count("\n") == 0


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(VolsamError, match="No such file"):
        read_prompts(tmp_path / "none.csv")
    (tmp_path / "image.csv").write_bytes(b"II*\0\xff\xfe")
    with pytest.raises(VolsamError, match="no text file"):
        read_prompts(tmp_path / "image.csv")


def test_prompts_must_lie_in_the_image(tmp_path: Path) -> None:
    found = table(tmp_path, GOOD)
    found.check(range(8), (0, 0), (40, 40))
    found.check(range(6), (2, 2), (19, 21))
    for frames, corner, shape, fault in (
        (range(1, 8), (0, 0), (40, 40), "track 1 in frame 0, and the frames are 1 to 7"),
        (range(8), (0, 0), (20, 40), "track 3 in frame 5 outside"),
        (range(8), (0, 18), (40, 40), "track 1 in frame 0 outside"),
    ):
        with pytest.raises(VolsamError, match=fault):
            found.check(frames, corner, shape)


def test_links_of_tracks_gaps_and_daughters(tmp_path: Path) -> None:
    found = table(tmp_path, GOOD)
    pairs = np.array([[0, 1], [1, 1], [3, 2], [4, 2], [5, 3], [7, 2], [7, 3]], np.uint64)
    links = prompted_links(pairs, found)
    assert links.tolist() == [[1, 2], [2, 3], [3, 4], [2, 5], [4, 6], [5, 7]]
    count = len(pairs)
    objects = Objects.sort(np.arange(count) + 1, pairs[:, 0], np.zeros((count, 3)), np.ones(count))
    lineage = Lineage.of(objects, links)
    assert lineage.track.tolist() == [1, 1, 2, 2, 3, 2, 3]
    assert lineage.parent.tolist() == [0, 1, 1]
    # A mother without any object leaves its daughters as they are.
    assert prompted_links(pairs[2:], found).tolist() == [[1, 2], [2, 4], [3, 5]]
    assert prompted_links(pairs[:0], found).shape == (0, 2)
