import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from volsam.train.board import Board


class Writer:
    """Stands for torch's SummaryWriter and remembers what it is told."""

    made: list["Writer"]
    fails: bool

    def __init__(self, folder: str, purge_step: int | None = None, **options: Any) -> None:
        self.folder, self.purge_step, self.calls = folder, purge_step, []  # type: ignore[var-annotated]
        type(self).made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.calls.append((tag, value, step))

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str) -> None:
        self.calls.append((tag, picture.shape, step, dataformats))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    module = ModuleType("torch.utils.tensorboard")
    kind = type("Writer", (Writer,), {"made": [], "fails": False})
    module.SummaryWriter = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return kind


def test_logs_by_step_and_leaves_out_what_is_not_trained(
    writer: type[Writer], tmp_path: Path
) -> None:
    board = Board(tmp_path, step=40)
    board.losses(50, 1e-4, 0.3, 0.01, 0.0)
    board.metric(2, 50, 0.4, 0.4, 0.0)
    board.images(50, {"a": np.zeros((4, 5, 3), np.uint8)})
    board.close()
    board.losses(51, 1e-4, 0.3, 0.01, 0.0)
    (made,) = writer.made
    assert made.purge_step == 41
    assert made.calls == [
        ("loss/prompts_dice", 0.3, 50), ("loss/prompts_iou", 0.01, 50), ("learning_rate", 1e-4, 50),
        ("validation/metric", 0.4, 50), ("validation/prompts_dice", 0.4, 50), ("epoch", 2, 50),
        "flush", ("pictures/a", (4, 5, 3), 50, "HWC"), "close",
    ]  # fmt: skip


def test_disabled_does_nothing(writer: type[Writer], tmp_path: Path) -> None:
    board = Board(tmp_path / "logs", enabled=False)
    board.losses(1, 1e-4, 0.3, 0.01, 0.5)
    board.close()
    assert writer.made == []
    assert not board.active
    assert not (tmp_path / "logs").exists()


def test_without_the_package_one_sentence_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    board = Board(tmp_path / "logs", say=said.append)
    board.losses(1, 1e-4, 0.3, 0.01, 0.5)
    board.metric(1, 1, 0.3, 0.1, 0.5)
    board.images(1, {"a": np.zeros((4, 5, 3), np.uint8)})
    board.close()
    assert len(said) == 1
    assert "volsam[train]" in said[0]
    assert not (tmp_path / "logs").exists()


def test_a_full_disk_ends_the_logs_only(writer: type[Writer], tmp_path: Path) -> None:
    said: list[str] = []
    board = Board(tmp_path, say=said.append)
    writer.fails = True
    board.losses(1, 1e-4, 0.3, 0.01, 0.5)
    board.losses(2, 1e-4, 0.3, 0.01, 0.5)
    assert said == ["no TensorBoard logs from here on: No space left on device"]
    assert not board.active


def test_tensorboard_reads_a_run_that_went_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Board(tmp_path)
    for step in (1, 2, 3, 4):
        first.losses(step, 1e-4, step / 10, 0.01, 0.5)
    first.close()
    second = Board(tmp_path, step=2)
    for step in (3, 4):
        second.losses(step, 1e-4, step / 100, 0.01, 0.5)
    second.images(4, {"a": np.zeros((4, 5, 3), np.uint8)})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(e.step, round(e.value, 3)) for e in events.Scalars("loss/prompts_dice")]
    assert found == [(1, 0.1), (2, 0.2), (3, 0.03), (4, 0.04)]
    assert [e.step for e in events.Images("pictures/a")] == [4]


def test_the_real_package_reads_what_is_written(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = Board(tmp_path, say=lambda text: pytest.fail(text))
    board.losses(1, 1e-3, 0.5, 0.1, 0.7)
    board.losses(2, 1e-4, 0.4, 0.1, 0.6)
    board.images(2, {"before": np.zeros((8, 9, 3), np.uint8)})
    board.close()
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    tags = found.Tags()
    assert len(tags["images"]) == 1
    series = {tag: [point.value for point in found.Scalars(tag)] for tag in tags["scalars"]}
    assert any(values == pytest.approx([0.7, 0.6]) for values in series.values()), series
