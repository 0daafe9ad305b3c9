"""Inputs from outside: whose they are, and that only a change of content counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from volsam.blocks.ledger import record_path
from volsam.config import validate
from volsam.errors import VolsamError
from volsam.inputs import external_inputs, fingerprints, stamps
from volsam.paths import SamplePaths, write_json
from volsam.stages import STAGES


def test_roles(tmp_path: Path) -> None:
    weights = tmp_path / "encoder.pt"
    weights.touch()
    sample = {"image": "i.tif", "mask": "m.tif", "truth": "t.tif"}
    config = validate({"model": f"{weights}::none.pt", "samples": {"a": sample}})
    found = {stage: external_inputs(config, "a", stage) for stage in STAGES}
    assert found["ingest"] == {"image": "i.tif"}
    assert found["plan"] == {"model_0": str(weights), "mask": "m.tif"}
    assert found["evaluate"] == {"truth": "t.tif"}
    others = set(STAGES) - {"ingest", "plan", "evaluate"}
    assert all(found[stage] == {} for stage in others)
    stored = validate({"model": "predictions:p.zarr", "samples": {"a": {"image": "i.tif"}}})
    assert external_inputs(stored, "a", "plan") == {"predictions": "p.zarr"}


def test_prompted_objects_need_no_model_of_association() -> None:
    samples = {"a": {"image": "i.tif", "prompts": "p.csv"}, "b": {"image": "i.tif"}}
    config = validate({"task": "track", "track": {"associations": "m"}, "samples": samples})
    assert external_inputs(config, "a", "observe") == {}
    assert external_inputs(config, "b", "observe") == {"associations": "m"}


def test_change_of_content_and_of_date(tmp_path: Path) -> None:
    image = tmp_path / "i.tif"
    image.write_bytes(b"one")
    sample = {"image": str(image)}
    config = validate({"results": str(tmp_path / "r"), "samples": {"a": sample}})
    first = stamps(config, "a", "ingest")
    record = record_path(SamplePaths(config.results, "a"), "ingest")
    write_json(record, {"inputs": first})

    os.utime(image, (1, 1))
    assert fingerprints(config, "a", "ingest") == {"image": first["image"][1]}
    image.write_bytes(b"two")
    # A file system whose clock ticks in milliseconds may give it the date of the first.
    os.utime(image, (2, 2))
    assert fingerprints(config, "a", "ingest") != {"image": first["image"][1]}

    # An unchanged file is not read again: its known fingerprint is believed.
    stat = stamps(config, "a", "ingest")["image"][0]
    write_json(record, {"inputs": {"image": [stat, "known"]}})
    assert fingerprints(config, "a", "ingest") == {"image": "known"}


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"inputs": {"image": 3}})])
def test_torn_record_is_no_knowledge(tmp_path: Path, text: str) -> None:
    image = tmp_path / "i.tif"
    image.write_bytes(b"one")
    config = validate({"results": str(tmp_path / "r"), "samples": {"a": {"image": str(image)}}})
    before = fingerprints(config, "a", "ingest")
    record = record_path(SamplePaths(config.results, "a"), "ingest")
    record.parent.mkdir(parents=True)
    record.write_text(text)
    assert fingerprints(config, "a", "ingest") == before


def test_missing_input(tmp_path: Path) -> None:
    config = validate({"samples": {"a": {"image": str(tmp_path / "none.tif")}}})
    with pytest.raises(VolsamError, match=r"nothing at .*none.tif"):
        fingerprints(config, "a", "ingest")
