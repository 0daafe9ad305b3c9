"""A model of association among the stages: with a stand-in, and with a small network of trackastra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dishes
import numpy as np
import pyarrow.parquet as pq
import pytest
import scenes
import yaml
from associators import Stub

from volsam.blocks.ledger import record_path
from volsam.config import validate
from volsam.dependence import STAGE_SECTIONS, stage_config
from volsam.errors import VolsamError
from volsam.stages import observe as observe_stage
from volsam.stages.tabled import columns, read_tables, table_files
from volsam.track import trackastra_model
from volsam.track.tables import read_lineage


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Folder of a model that a stand-in takes the place of."""
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.setattr(trackastra_model, "check", lambda _: {"coord_dim": 2})
    monkeypatch.setattr(trackastra_model, "load", lambda *_: Stub(scale=10.0))
    return str(folder)


def run(folder: Path, name: str, model: str | None, depth: int = 1) -> Any:
    sample = {"segmentation": str(folder / "labels.tif")}
    data = dishes.settings(
        folder, folder / name, depth, sample=sample, track={"associations": model}
    )
    return scenes.run_pipeline(data, stages=dishes.GIVEN, order=lambda blocks: blocks[::-1])


def test_runs_are_no_part_of_the_scores(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dishes.write_sequence(tmp_path)
    found = []
    for length in (8, 3, 1):
        monkeypatch.setattr(observe_stage, "RUN", length)
        paths = run(tmp_path, str(length), model)
        table = columns(read_tables(paths, "observe", "associations-"))
        assert len(table["score"]) > 20
        found.append(
            (paths.lineage.read_bytes(), {k: np.sort(v).tolist() for k, v in table.items()})
        )
        assert len(read_lineage(paths.lineage)) == 5
    assert found[0] == found[1] == found[2]


def test_the_key_reruns_what_depends_on_it(tmp_path: Path, model: str) -> None:
    dishes.write_sequence(tmp_path)
    plain, with_model = (
        validate(dishes.settings(tmp_path, tmp_path / "r", track={"associations": folder}))
        for folder in (None, model)
    )
    changed = {
        stage
        for stage in STAGE_SECTIONS
        if stage_config(plain, "a", stage) != stage_config(with_model, "a", stage)
    }
    assert changed == {"observe", "link"}

    def digests(folder: str | None) -> tuple[dict[str, str], bool]:
        paths = run(tmp_path, "r", folder)
        of = {
            stage: json.loads(record_path(paths, stage).read_text())["digest"]
            for stage in dishes.GIVEN
        }
        return of, bool(table_files(paths, "observe", "associations-"))

    (before, scored), (after, kept) = digests(model), digests(None)
    assert scored
    assert not kept
    same = [stage for stage in dishes.GIVEN if before[stage] == after[stage]]
    assert same == ["ingest", "plan", "number", "label", "measure"]


def test_a_model_for_planes_and_a_sequence_of_volumes(tmp_path: Path, model: str) -> None:
    dishes.write_sequence(tmp_path, depth=3)
    with pytest.raises(VolsamError, match="is for planes, and frames of sample a have 3 slices"):
        run(tmp_path, "r", model, depth=3)


@pytest.mark.parametrize("depth", [1, 3])
def test_with_a_network_of_trackastra(tmp_path: Path, depth: int) -> None:
    reason = "the optional package trackastra is not installed"
    network = pytest.importorskip("trackastra.model", reason=reason).TrackingTransformer
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = {"coord_dim": 2, "feat_dim": 7} if depth == 1 else {"coord_dim": 3, "feat_dim": 12}
    small = {"d_model": 32, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    network(**sizes, **small, feat_embed_per_dim=4, window=3).save(tmp_path / "model")
    (tmp_path / "model" / "train_config.yaml").write_text(yaml.safe_dump({"features": "wrfeat"}))
    dishes.write_sequence(tmp_path, depth)
    paths = run(tmp_path, "r", str(tmp_path / "model"), depth)
    (path,) = table_files(paths, "observe", "associations-")
    assert pq.read_table(path).num_rows
    lineage = read_lineage(paths.lineage)
    assert len(lineage.objects) == 3 * 4 + 4 * 4  # weights mean nothing, so neither do links
