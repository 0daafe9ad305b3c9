"""Windows in time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from volsam.track.windows import windows


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 9))
def test_own_frames_divide_the_sequence(frames: int, length: int, overlap: int) -> None:
    found = windows(frames, length, overlap)
    assert [frame for window in found for frame in window.own] == list(range(frames))
    for window in found:
        assert window.seen.start == max(0, window.own.start - overlap)
        assert window.seen.stop == min(frames, window.own.start + length + overlap)
