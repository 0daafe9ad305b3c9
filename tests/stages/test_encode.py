"""How a worker loads the model of a plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from volsam.stages import encode
from volsam.stages.runplan import RunPlan


def test_the_plan_decides_how_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def load_model(spec: str, **settings: Any) -> str:
        seen.update(settings, spec=spec)
        return spec

    monkeypatch.setattr("volsam.models.load_model", load_model)
    stated = {"device": "cuda", "precision": "fp16", "compile": True, "allow_pickle": False}
    plan = SimpleNamespace(model="a model", threads=torch.get_num_threads(), **stated)
    encode._load.cache_clear()
    assert cast("str", encode.model_of(cast("RunPlan", plan))) == "a model"
    encode._load.cache_clear()
    assert seen == {"spec": "a model", **stated}
