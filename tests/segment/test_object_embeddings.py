"""What the network makes of an object, in few numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volsam.segment.object_embeddings import SIZE, directions, mean_embeddings, project


def test_few_channels_keep_distances() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(300, 256)).astype(np.float32)
    short = project(torch.from_numpy(points.T[None, :, :, None]))[0, :, :, 0].T
    assert short.shape == (300, SIZE)
    a, b = random.integers(0, 300, (2, 500))
    ratio = np.linalg.norm(short[a] - short[b], axis=1) / np.linalg.norm(
        points[a] - points[b], axis=1
    )
    ratio = ratio[a != b] * np.sqrt(256 / SIZE)
    assert 0.6 < ratio.min() < ratio.max() < 1.5
    assert np.array_equal(directions(256), directions.__wrapped__(256))
    np.testing.assert_allclose(directions(8).T @ directions(8), np.eye(8), atol=1e-6)


def test_a_device_without_room_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the block is tried again with a smaller batch."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "einsum", full)
    with pytest.raises(MemoryError, match="no room"):
        project(torch.zeros(1, 4, 2, 2))


def test_means_over_the_pixels_of_labels() -> None:
    random = np.random.default_rng(1)
    embedding = random.normal(size=(5, 4, 4)).astype(np.float32)
    labels = random.integers(0, 4, (30, 30))
    covered = 3.0  # a quarter of the input is padding
    cell = ((np.arange(30) + 0.5) / 10).astype(int)
    pixels = embedding[:, cell[:, None], cell[None]]
    found = mean_embeddings(embedding, labels, covered)
    assert found.shape == (4, 5)
    assert found.dtype == np.float32
    for label in (1, 2, 3):
        expected = pixels[:, labels == label].mean(axis=1)
        np.testing.assert_allclose(found[label], expected, rtol=1e-5, atol=1e-6)
    assert not found[0].any()
    assert mean_embeddings(embedding, np.zeros((30, 30), int), covered).shape == (1, 5)
