"""Iterations of micro-sam's joint training on one batch; run in micro-sam's environment.

    python train_iterations.py <checkpoint> <batch.npz> <iterations> <record.npz>

Writes the prompts that were drawn, losses, norms of the first gradients, and CPU seconds of each
iteration. The learning rate is 0: all of them start from the same weights.
"""

import contextlib
import random
import sys
import time

import numpy as np
import torch
from micro_sam.instance_segmentation import get_unetr
from micro_sam.training import ConvertToSamInputs, get_trainable_sam_model
from micro_sam.training.joint_sam_trainer import JointSamTrainer
from torch_em.loss import DiceBasedDistanceLoss


class Recorder(JointSamTrainer):
    """The trainer as it is; what goes through it is written down."""

    record: dict[str, np.ndarray]

    def _compute_iterative_loss(self, batched_inputs, **arguments):
        (prompts,) = batched_inputs
        self.masked = []
        result = super()._compute_iterative_loss(batched_inputs=batched_inputs, **arguments)
        for name in ("point_coords", "point_labels", "boxes"):
            if name in prompts:
                self._note(name, prompts[name])
        self._note("masked", self.masked)
        self._note("dice", result[1])
        self._note("iou", result[2])
        return result

    def _preprocess_batch(self, batched_inputs, y, sampled_ids):
        self._note("ids", sampled_ids[0])
        return super()._preprocess_batch(batched_inputs, y, sampled_ids)

    def _update_prompts(self, *arguments):
        batched_inputs = super()._update_prompts(*arguments)
        self.masked.append("mask_inputs" in batched_inputs[0])
        return batched_inputs

    def _instance_iteration(self, *arguments, **keywords):
        loss = super()._instance_iteration(*arguments, **keywords)
        self._note("automatic", loss)
        return loss

    def _backprop(self, loss):
        if self._iteration:
            return super()._backprop(loss)
        loss.backward()
        step = "automatic" if f"{self._iteration}_automatic" in self.record else "prompts"
        named = {k.removeprefix("sam."): p for k, p in self.model.named_parameters()}
        named |= {
            f"decoder.{k}": p
            for k, p in self.unetr.named_parameters()
            if not k.startswith("encoder.")
        }
        named = {k: p for k, p in named.items() if p.grad is not None}
        self.record[f"names_{step}"] = np.array(list(named))
        self.record[f"norms_{step}"] = np.array([float(p.grad.norm()) for p in named.values()])
        self.optimizer.step()

    def _note(self, name, value):
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        self.record[f"{self._iteration}_{name}"] = np.asarray(value)


def iterate(model, unetr, batch, iterations, objects=5, sub_iterations=3, dilation=10):
    """Run iterations on one batch and return what was written down."""
    np.random.seed(0)  # noqa: NPY002  (the global generator is what micro-sam draws from)
    random.seed(0)
    x = torch.from_numpy(batch["image"])[None]
    y = torch.from_numpy(np.concatenate([batch["labels"][None], batch["targets"]]))[None]
    clock = []

    def loader():
        for _ in range(iterations):
            clock.append(time.process_time())
            yield x, y
        clock.append(time.process_time())

    parameters = list(model.parameters())
    parameters += [p for k, p in unetr.named_parameters() if not k.startswith("encoder")]
    loss = DiceBasedDistanceLoss(mask_distances_in_bg=True)
    convert = ConvertToSamInputs(model.transform, dilation, box_distortion_factor=0.025)
    trainer = Recorder(
        name="benchmark",
        unetr=unetr,
        instance_loss=loss,
        instance_metric=loss,
        convert_inputs=convert,
        n_sub_iteration=sub_iterations,
        n_objects_per_batch=objects,
        model=model,
        optimizer=torch.optim.AdamW(parameters, lr=0.0),
        device="cpu",
        mixed_precision=False,
        train_loader=torch.utils.data.DataLoader(torch.zeros(1)),
        val_loader=torch.utils.data.DataLoader(torch.zeros(1)),
    )
    trainer.train_loader, trainer.record, trainer.logger = loader(), {}, None
    trainer._iteration, trainer.max_iteration = 0, iterations + 1
    trainer._train_epoch_impl(_Silent(), contextlib.nullcontext, trainer._backprop)
    return {"seconds": np.diff(clock), **trainer.record}


class _Silent:
    def update(self, _: int) -> None:
        pass


def main(checkpoint: str, batch: str, iterations: int, output: str) -> None:
    model, state = get_trainable_sam_model(
        "vit_b", device="cpu", checkpoint_path=checkpoint, return_state=True
    )
    unetr = get_unetr(model.sam.image_encoder, decoder_state=state["decoder_state"], device="cpu")
    np.savez(output, **iterate(model, unetr, np.load(batch), iterations))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
