"""Read weights in every form that SAM and micro-sam write, without running what is in the file.

Forms, told apart by their keys:

- a plain SAM state dict: ``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``;
- a micro-sam (torch_em) training checkpoint or export: ``model_state``, with or without the prefix
  ``sam.``, and ``decoder_state``;
- a training checkpoint of encoder and decoder only, whose ``model_state`` is a UNETR with
  ``encoder.*``;
- a decoder alone (second file);
- this project's own: ``image_encoder.*`` and ``decoder.*``.

Any of them as safetensors instead of a torch file. Loading is strict: every weight is used and
every parameter is given.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from volsam.errors import VolsamError

State = dict[str, Tensor]
_PEFT = re.compile(  # names that micro-sam's and the usual adapters add to a ViT's
    r"lora|qkv_proj|mlp_layer|w_[ab]_linear|FacT|down_proj|up_proj|\.(scale|shift|alpha)$"
    r"|quant_state|absmax"
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a file, or of two.

    Attributes
    ----------
    sam : dict
        State with keys ``image_encoder.*`` and perhaps ``prompt_encoder.*`` and ``mask_decoder.*``.
    decoder : dict or None
        State of a `unetr.UNETR`.
    """

    sam: State
    decoder: State | None


def read_checkpoint(
    path: Path, decoder_path: Path | None = None, *, allow_pickle: bool = False
) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        Torch file or safetensors.
    decoder_path : Path, optional
        File of the decoder, where it is separate; wins over one in `path`.
    allow_pickle : bool
        Accept a file that holds Python objects besides weights. Loading it can run any code its
        author put there.

    Raises
    ------
    VolsamError
        If a file is missing, damaged, of no known form, or needs `allow_pickle`.
    """
    checkpoint = _sort(_read(path, allow_pickle), path)
    if decoder_path is None:
        return checkpoint
    content = _read(decoder_path, allow_pickle)
    decoder = content.get("decoder_state", content)
    if not _is_decoder(decoder):
        raise VolsamError(
            f"{decoder_path} holds no decoder weights; give a micro-sam decoder file after '::'."
        )
    return Checkpoint(checkpoint.sam, _tensors(decoder, decoder_path))


def fit(module: nn.Module, state: Mapping[str, Tensor], what: str, path: Path) -> None:
    """Load `state` into `module`, all of it and nothing else; the tensors are taken, not copied."""
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    if any(_PEFT.search(key) for key in unexpected):
        raise VolsamError(
            f"{path} holds adapters of parameter-efficient fine-tuning (such as {unexpected[0]}), "
            "which cannot be loaded; merge them into the weights when exporting the model."
        )
    if missing or unexpected:
        faults = [
            f"{len(keys)} keys {kind} (such as {keys[0]})"
            for kind, keys in (("missing", missing), ("too many", unexpected))
            if keys
        ]
        raise VolsamError(
            f"The weights of {path} do not fit a {what}: {' and '.join(faults)}; "
            "check that the file is a complete, unmodified model."
        )
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise VolsamError(
                f"The weights of {path} do not fit a {what}: {key} has shape "
                f"{tuple(state[key].shape)} and {tuple(tensor.shape)} is needed; use a model "
                "with SAM's own input size and widths."
            )
    floats = {key: _like(state[key], tensor) for key, tensor in wanted.items()}
    module.load_state_dict(floats, assign=True)


def _like(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Memory of our own, in the type of the parameter: the file may change after loading."""
    return tensor.to(wanted.dtype, copy=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read the description that lies beside the weights of a model of our own."""
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise VolsamError(
            f"Cannot read the model description {path}; install volsam again."
        ) from None
    return description


def _read(path: Path, allow_pickle: bool) -> Mapping[str, Any]:
    if not path.is_file():
        raise VolsamError(f"There is no checkpoint at {path}; check the key model.")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # A mapped file gives up its pages: optimiser states of training are never read.
            mapped = zipfile.is_zipfile(path)
            content = torch.load(
                path,
                map_location="cpu",
                weights_only=not allow_pickle,
                mmap=mapped,
                pickle_module=_TOLERANT if allow_pickle else None,
            )
    except PermissionError:
        raise VolsamError(
            f"You may not read the checkpoint {path}; change its permissions."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever its reader meets
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise VolsamError(
                f"{path} holds Python objects besides weights, which can run any code; export the "
                "weights from micro-sam (export_custom_sam_model), or, if you trust its author, "
                "set compute.allow_pickle: true (in Python, pass allow_pickle=True)."
            ) from None
        raise VolsamError(
            f"{path} is no checkpoint or is damaged ({type(error).__name__}); name a file of weights, "
            "or get it again."
        ) from None
    if not isinstance(content, Mapping):
        raise VolsamError(
            f"{path} holds a {type(content).__name__} and no weights; save its state_dict instead."
        )
    return content


def _sort(content: Mapping[str, Any], path: Path) -> Checkpoint:
    decoder = content.get("decoder_state")
    state = content.get("model_state", content)
    if not isinstance(state, Mapping):
        raise VolsamError(f"The model_state of {path} holds no weights; get the file again.")
    state = {str(key).removeprefix("sam."): value for key, value in state.items()}
    if any(key.startswith("image_encoder.") for key in state):
        own = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
        sam = {k: v for k, v in state.items() if not k.startswith("decoder.")}
        decoder = decoder or own or None
    elif any(key.startswith("encoder.") for key in state) and _is_decoder(state):
        sam = {f"image_{k}": v for k, v in state.items() if k.startswith("encoder.")}
        decoder = {k: v for k, v in state.items() if not k.startswith("encoder.")}
    elif _is_decoder(state):
        raise VolsamError(
            f"{path} is a decoder without an image encoder; write the model as "
            f"encoder.pt::{path.name} with the encoder it was trained on."
        )
    else:
        keys = ", ".join(sorted(state)[:3]) or "nothing"
        raise VolsamError(
            f"{path} is no SAM checkpoint (it holds {keys}); use a SAM or micro-sam model file."
        )
    return Checkpoint(_tensors(sam, path), None if decoder is None else _tensors(decoder, path))


def _is_decoder(state: Any) -> bool:
    return (
        isinstance(state, Mapping) and "out_conv.weight" in state and "base.block.1.weight" in state
    )


def _tensors(state: Mapping[str, Any], path: Path) -> State:
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise VolsamError(
                f"{key} of {path} is a {type(value).__name__} and no weight; get the file again."
            )
    return dict(state)


class _Missing:
    """Stands for an object whose class is not installed; only the weights matter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _TolerantUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return _Missing


_TOLERANT = ModuleType("tolerant_pickle")
_TOLERANT.__dict__.update(pickle.__dict__, Unpickler=_TolerantUnpickler)
