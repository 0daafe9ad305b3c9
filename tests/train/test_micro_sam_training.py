"""Our two steps beside iterations recorded from micro-sam's joint trainer: same weights and prompts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import ITERATIONS, miniature

from volsam.models.model import Source
from volsam.models.sam import modeling
from volsam.models.unetr import UNETR
from volsam.train.joint import JointNetwork
from volsam.train.layers import prepare_decoder, prepare_encoder

FOLDER = Path(__file__).parent
# The recording and the replay of the benchmark, and the weights of the fixtures of tests/models.
sys.path += [str(FOLDER.parents[1]), str(FOLDER.parent / "models")]

from seeded import seeded_state  # noqa: E402

from benchmarks.training import LOSSES, gradient_differences, replay  # noqa: E402

RECORD: Mapping[str, np.ndarray] = np.load(FOLDER / "micro_sam_training.npz")


@pytest.mark.parametrize("fast", [False, True])
def test_losses_and_gradients_are_micro_sams(fast: bool) -> None:
    """Starts from point and box, without and with mask prompts; stock layers and those of training."""
    sam, decoder = miniature(modeling()), UNETR(32, (32, 16, 8, 4))
    for part in (sam, decoder):
        part.load_state_dict(seeded_state(part))
    if fast:
        prepare_encoder(sam.image_encoder)
        prepare_decoder(decoder)
    network = JointNetwork(sam, decoder, Source("miniature", []), 2.0)
    if fast:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = replay(network, RECORD, RECORD)
    for number in range(ITERATIONS):
        for loss in LOSSES:
            assert ours[f"{number}_{loss}"] == pytest.approx(RECORD[f"{number}_{loss}"], abs=1e-5)
    for step in ("prompts", "automatic"):
        assert max(gradient_differences(RECORD, ours, step).values()) < 1e-4
