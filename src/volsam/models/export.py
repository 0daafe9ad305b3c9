"""Weights under the names of others: micro-sam's combined checkpoint.

Our own form is one flat state, ``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*`` and
``decoder.*``. micro-sam reads two: a plain SAM and the decoder for automatic instance segmentation,
whose names are torch_em's, as those of `unetr.UNETR` are.

Invariant: what is written holds tensors only, so that it loads without running code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volsam.errors import VolsamError
from volsam.models.checkpoint import Checkpoint, State
from volsam.models.unetr import UNETR
from volsam.paths import replace

_DECODER = "decoder."
_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


def checkpoint_states(state: Mapping[str, Tensor]) -> tuple[State, State | None]:
    """Split our own form into micro-sam's two.

    Parameters
    ----------
    state : mapping of str to tensor
        Our own form.

    Returns
    -------
    model_state : dict
        Of the SAM.
    decoder_state : dict or None
        Of the decoder for automatic instance segmentation, if there is one.
    """
    decoder = {k.removeprefix(_DECODER): v for k, v in state.items() if k.startswith(_DECODER)}
    sam = {key: value for key, value in state.items() if not key.startswith(_DECODER)}
    return sam, decoder or None


def own_state(checkpoint: Checkpoint) -> State:
    """Our own form of a checkpoint that was read: the reverse of `checkpoint_states`."""
    decoder = checkpoint.decoder or {}
    return {**checkpoint.sam, **{f"{_DECODER}{key}": value for key, value in decoder.items()}}


def misfit(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> str | None:
    """Why micro-sam cannot build a model, or None if it can.

    Parameters
    ----------
    description : mapping
        Content of ``model.json``.
    state : mapping of str to tensor
        Our own form.
    """
    if description.get("encoder") is not None:
        return "its image encoder is none of SAM's own"
    missing = [part for part in _PARTS if not any(key.startswith(part) for key in state)]
    if missing:
        return f"it has no {missing[0].rstrip('.')}"
    decoder = checkpoint_states(state)[1]
    if decoder is not None and _shapes(decoder) not in _standard():
        return "its decoder is not micro-sam's"
    return None


def write_checkpoint(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint that micro-sam loads, with its decoder.

    Parameters
    ----------
    path : Path
        File to write.
    state : mapping of str to tensor
        Our own form, of a SAM whose architecture micro-sam knows.

    Raises
    ------
    VolsamError
        If the state is not such a SAM, see `misfit`, or the file cannot be written.
    """
    export_checkpoint(path, {}, Checkpoint(*checkpoint_states(state)))


def export_checkpoint(path: Path, description: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Write a model for micro-sam as `write_checkpoint` does, unless its description forbids."""
    reason = misfit(description, own_state(checkpoint))
    if reason is not None:
        raise VolsamError(
            f"Cannot write {path} for micro-sam: {reason}; export such a model as a BioImage.IO "
            "package instead."
        )
    content = {"model_state": dict(sorted(checkpoint.sam.items()))}
    if checkpoint.decoder is not None:
        content["decoder_state"] = dict(sorted(checkpoint.decoder.items()))
    replace(path, lambda partial: _save(content, partial))


def _save(content: Mapping[str, State], path: Path) -> None:
    with path.open("wb") as file:  # given a path, torch writes its name into the file
        torch.save(content, file)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _standard() -> list[dict[str, tuple[int, ...]]]:
    with torch.device("meta"):
        return [_shapes(UNETR(transposed=flag).state_dict()) for flag in (False, True)]
