"""The training loop: what it keeps, when it ends, and that a kill changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from volsam.errors import VolsamError
from volsam.train.adapt import adapt, restrict
from volsam.train.crops import crop
from volsam.train.gather import gather
from volsam.train.joint import JointNetwork, build
from volsam.train.loop import Loop
from volsam.train.presets import PRESETS, choose
from volsam.train.run import train_model
from volsam.train.settings import Train

SCRIPT = """
import sys
from pathlib import Path
import volsam.train.loop as loop
from volsam.train.run import train_model
from volsam.train.settings import Train
loop.SAVE_EVERY = 0.0
settings = Train.model_validate_json(Path(sys.argv[1]).read_text())
train_model(settings, Path(sys.argv[2]), sys.argv[3], threads=1, say=lambda text: None)
"""


def settings(images: Path, **changes: Any) -> Train:
    data = {
        "name": "mine",
        "data": [{"image": f"{images}/im/*.tif", "labels": f"{images}/lab/*.tif", "axes": "yx"}],
        "batch": 1,
        "objects": 2,
        "min_size": 12,
        "interactive": {"sub_iterations": 2},
        "schedule": {"epochs": 2, "steps": 3},
        "promotion": {"when": "always"},
    }
    return Train.model_validate({**data, **changes})


def run(chosen: Train, parent: str, folder: Path) -> Loop:
    parts = gather(chosen)
    network = build(parent)
    restrict(network, chosen.parts)
    adapt(network, chosen.adapt)
    said: list[str] = []
    loop = Loop(
        network,
        chosen,
        choose(chosen, 64),
        parts.train,
        [crop(e.image[:64, :64], e.labels[:64, :64], 12) for e in parts.validation],
        folder,
        learning_rate=1e-3,
        report=said.append,
    )
    loop.run()
    return loop


def test_weights_change_and_the_log_is_whole(images: Path, parent: str, tmp_path: Path) -> None:
    loop = run(settings(images), parent, tmp_path)
    before, after = build(parent).state_dict(), loop.network.state_dict()
    for part in ("image_encoder", "prompt_encoder", "mask_decoder", "decoder"):
        names = [n for n in before if n.startswith(f"{part}.")]
        assert any(not torch.equal(before[n], after[n]) for n in names), part
    assert loop.progress.step == 6
    assert [row[0] for row in loop.progress.metrics] == [1, 2]
    assert loop.progress.ended == "2 epochs are done"


@pytest.mark.parametrize("kind", ["plateau", "cosine"])
def test_interrupted_between_steps_is_the_same(
    kind: str, images: Path, parent: str, tmp_path: Path
) -> None:
    """A run that is cut after its first epoch goes on to the weights of an unbroken one."""
    schedule = {"epochs": 3, "steps": 2, "decline": kind, "average": 0.5}
    whole = run(settings(images, schedule=schedule), parent, tmp_path / "whole")
    cut = {"epochs": 1, "steps": 2, "decline": kind, "average": 0.5}
    if kind == "plateau":  # the cosine depends on the number of epochs
        run(settings(images, schedule=cut), parent, tmp_path / "cut")
        state = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
        state["progress"]["ended"] = ""
        torch.save(state, tmp_path / "cut" / "state.pt")
        again = run(settings(images, schedule=schedule), parent, tmp_path / "cut")
    else:
        again = run(settings(images, schedule=schedule), parent, tmp_path / "again")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_killed_at_random_ends_in_the_same_weights(
    images: Path, parent: str, tmp_path: Path
) -> None:
    chosen = settings(images, schedule={"epochs": 4, "steps": 3, "average": 0.5})
    file = tmp_path / "settings.json"
    file.write_text(chosen.model_dump_json())
    train_model(chosen, tmp_path / "whole", parent, threads=1, say=lambda text: None)
    whole = tmp_path / "whole" / "mine" / "1"
    expected = load_file(whole / "weights.safetensors")
    done = json.loads((whole / "progress.json").read_text())
    # In steps and not in seconds: a fast machine would be done with all before the third kill.
    longest = 1.5 * done["seconds"] / done["step"]
    command = [sys.executable, "-c", SCRIPT, str(file), str(tmp_path / "killed"), parent]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng, kills = random.Random(0), 0
    for _ in range(20):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        state = next(iter((tmp_path / "killed").glob("mine/.training/*/state.pt")), None)
        before = state.stat().st_mtime_ns if state else 0
        deadline = time.monotonic() + 120
        while kills < 3 and process.poll() is None and time.monotonic() < deadline:
            state = next(iter((tmp_path / "killed").glob("mine/.training/*/state.pt")), None)
            if state and state.stat().st_mtime_ns > before:
                time.sleep(rng.uniform(0, longest))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        if process.wait(120) == 0:
            break
    assert kills == 3
    found = load_file(tmp_path / "killed" / "mine" / "1" / "weights.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    left = [p.name for p in (tmp_path / "killed" / "mine").iterdir()]
    assert sorted(left) == [".training", "1", "promoted.json"]


def test_without_validation_the_last_weights_are_kept(
    images: Path, parent: str, tmp_path: Path
) -> None:
    chosen = settings(images, validation=0, schedule={"epochs": 3, "steps": 1, "patience": 1})
    loop = run(chosen, parent, tmp_path)
    assert loop.progress.ended == "3 epochs are done"


def test_other_batches_are_not_gone_on_with(images: Path, parent: str, tmp_path: Path) -> None:
    run(settings(images), parent, tmp_path)
    with pytest.raises(VolsamError, match=r"begun with .*batch.* state train\.preset"):
        run(settings(images, batch=2), parent, tmp_path)


def test_norms_that_are_not_trained_keep_their_statistics(
    images: Path, parent: str, tmp_path: Path
) -> None:
    """Also with an average of the weights, whose other norms get statistics of their own."""
    schedule = {"epochs": 1, "steps": 2, "average": 0.5}
    chosen = settings(images, parts="prompts", adapt="decoder", schedule=schedule)
    loop = run(chosen, parent, tmp_path)
    before = build(parent).state_dict()
    for name, value in loop.best.items():
        if name.startswith(("image_encoder.", "decoder.")):
            assert torch.equal(value, before[name]), name


def test_early_stopping(images: Path, parent: str, tmp_path: Path) -> None:
    schedule = {"epochs": 50, "steps": 1, "patience": 2, "learning_rate": 1e-12}
    loop = run(settings(images, schedule=schedule), parent, tmp_path)
    assert loop.progress.ended == "no progress in 2 epochs"
    assert loop.progress.epoch < 50


def test_time_limit(images: Path, parent: str, tmp_path: Path) -> None:
    loop = run(settings(images, schedule={"minutes": 1e-4}), parent, tmp_path)
    assert loop.progress.step == 1
    assert "minutes are over" in loop.progress.ended


def test_accumulation_is_a_larger_batch(images: Path, parent: str, tmp_path: Path) -> None:
    """Two batches of one crop, or one of two: the same prompts' gradients on average."""
    schedule = {"epochs": 1, "steps": 2}
    loop = run(settings(images, accumulate=2, schedule=schedule), parent, tmp_path)
    assert loop.progress.step == 2


def test_damaged_state_is_said(images: Path, parent: str, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"torn")
    with pytest.raises(VolsamError, match=r"state.pt is damaged .* remove it"):
        run(settings(images), parent, tmp_path)


def test_only_prompts_leave_automatic_segmentation_as_it_is(
    images: Path, parent: str, tmp_path: Path
) -> None:
    loop = run(settings(images, parts="prompts", adapt="decoder"), parent, tmp_path)
    before, after = build(parent).state_dict(), loop.network.state_dict()
    for name, value in before.items():
        if name.startswith(("image_encoder.", "decoder.")):
            assert torch.equal(value, after[name]), name


def test_presets_and_stated_values(images: Path) -> None:
    chosen = choose(settings(images, batch=None, objects=None, preset="80gb"), 1024)
    assert chosen == PRESETS["80gb"]
    assert choose(settings(images, batch=3, objects=4, preset="8gb"), 1024).batch == 3
    assert choose(settings(images, batch=None, preset="cpu"), 64).batch == 4


def test_network_is_a_joint_network(parent: str) -> None:
    assert isinstance(build(parent), JointNetwork)


def test_a_training_that_diverges_at_once_is_refused(
    images: Path, parent: str, tmp_path: Path
) -> None:
    for parts in ("automatic", "prompts"):
        chosen = settings(images, parts=parts, schedule={"epochs": 3, "steps": 3})
        with spoilt(Loop, after=0), pytest.raises(VolsamError, match=r"diverged.*lower train\.sch"):
            run(chosen, parent, tmp_path / parts)
        assert not (tmp_path / parts / "state.pt").exists()


@pytest.mark.parametrize("after", [3, 5])
def test_a_training_that_diverges_later_keeps_the_best_weights(
    after: int, images: Path, parent: str, tmp_path: Path
) -> None:
    """Between two steps, and where the metric sees it first."""
    chosen = settings(images, parts="automatic", schedule={"epochs": 9, "steps": 3})
    with spoilt(Loop, after=after):
        loop = run(chosen, parent, tmp_path)
    assert loop.progress.ended.startswith(f"the training diverged after step {after + 1}, the best")
    assert all(torch.isfinite(value).all() for value in loop.network.state_dict().values())
    assert len(loop.progress.metrics) == 1
    again = run(chosen, parent, tmp_path)  # ended: nothing is done again
    assert again.progress.step == loop.progress.step
    for name, value in loop.best.items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_without_validation_nothing_is_kept_of_a_divergence(
    images: Path, parent: str, tmp_path: Path
) -> None:
    schedule = {"epochs": 2, "steps": 3}
    chosen = settings(images, parts="automatic", validation=0, schedule=schedule)
    with spoilt(Loop, after=5), pytest.raises(VolsamError, match=r"diverged after step 6"):
        run(chosen, parent, tmp_path)


@contextlib.contextmanager
def spoilt(loop: type[Loop], after: int) -> Iterator[None]:
    """Weights are no numbers once so many steps are done and another one is."""
    update = loop._update

    def broken(self: Loop) -> None:
        update(self)
        if self.progress.step >= after:
            with torch.no_grad():
                for weight in self.network.parameters():
                    weight.fill_(torch.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_update", broken)
        yield


def test_what_is_not_needed_is_not_kept(images: Path, parent: str, tmp_path: Path) -> None:
    """Images are kept for the statistics of an average only."""
    schedule = {"epochs": 1, "steps": 2}
    assert not run(settings(images, schedule=schedule), parent, tmp_path / "a")._recent
    averaged = settings(images, schedule={**schedule, "average": 0.5})
    assert run(averaged, parent, tmp_path / "b")._recent


def test_cpu_time_of_a_part_of_an_epoch_counts(
    images: Path, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volsam.train.loop.SAVE_EVERY", 0.0)
    saved: list[float] = []
    save = Loop._save

    def spy(self: Loop) -> None:
        saved.append(self.progress.cpu)
        save(self)

    monkeypatch.setattr(Loop, "_save", spy)
    run(settings(images, schedule={"epochs": 1, "steps": 3}), parent, tmp_path)
    assert saved[0] > 0
    assert saved == sorted(saved)
