"""Train the embedded model: `python -m experiments.micro.train --output DIR`.

First the vision tower alone learns, from dense targets, what each visual token shows; then everything learns to
answer, on small clips first and on all sizes later. The learning rate rises, stays, and falls to zero over the last
part (`--decay`). A run continues from its last checkpoint when it is started again with the same `--output`.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from adapters.micro.processing import patchify
from experiments.micro.batches import BUCKETS, SMALL, Batch, Batches, Bucket, Layout, encode_blocks, make_batch
from experiments.micro.clips import TOKEN_PIXELS
from experiments.micro.model import IMAGE_MEAN, IMAGE_STD, build_model, save_model
from experiments.micro.network import DenseHeads, decode, tower
from experiments.micro.questions import QUESTION_NAMES

# Decoder layers whose outputs learn the running scene number and whether the flash has been seen.
SUPERVISED_LAYERS = (1, 2)
HELD_OUT = 10**9  # seeds from here on are for measuring only


def main() -> None:
    """Train, with a checkpoint and a measurement every `--every` steps."""
    options = _options()
    console = Console()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 4 * len(BUCKETS)
    options.output.mkdir(parents=True, exist_ok=True)
    checkpoint = options.output / "checkpoint.pt"

    model, tokenizer = build_model()
    model.set_attn_implementation("eager")  # faster than sdpa in training on a CPU, see network.tower
    heads = DenseHeads(model.lm_head.in_features, len(SUPERVISED_LAYERS))
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        console.print(f"continuing at step {step}")

    layouts = {bucket: Layout(tokenizer, bucket.frames // 2, *grid(bucket)) for bucket in BUCKETS}
    trainer = Trainer(model, tokenizer, heads, layouts, compiled=options.compile)
    data = Batches(options.seed, step, options.small_until)
    loader = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=options.steps, completed=step)
        started = time.monotonic()
        running: dict[str, float] = {}
        while step < options.steps:
            for group in optimizer.param_groups:
                group["lr"] = options.rate * schedule(step, options.steps, options.decay)
            losses = trainer.step(next(loader), answering=step >= options.tower_steps)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            progress.update(task, completed=step)
            running = {k: 0.95 * running.get(k, v) + 0.05 * v for k, v in losses.items()} | {
                k: v for k, v in running.items() if k not in losses
            }
            if step % options.report == 0:
                rate = (time.monotonic() - started) / options.report
                console.print(f"step {step} {rate:.2f} s/step " + " ".join(f"{k} {v:.3f}" for k, v in running.items()))
                started = time.monotonic()
            if step % options.every == 0 or step == options.steps:
                measured = {"step": step, "small": trainer.measure(SMALL, 96)}
                if step > options.small_until:
                    measured["other"] = trainer.measure(BUCKETS[1 + step // options.every % (len(BUCKETS) - 1)], 48)
                console.print(measured)
                with (options.output / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"losses": running} | measured) + "\n")
                state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state | {"step": step}, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
                save_model(model, tokenizer, options.output / "model")


class Trainer:
    """Forward and backward of one batch, and measurement on held-out clips."""

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        heads: DenseHeads,
        layouts: dict[Bucket, Layout],
        compiled: bool,
    ) -> None:
        self.model, self.tokenizer, self.heads, self.layouts = model, tokenizer, heads, layouts
        wrap = partial(torch.compile, dynamic=False) if compiled else (lambda f: f)
        self._tower, self._decode = wrap(tower), wrap(decode)
        self._noise = torch.randn(4_000_000, dtype=torch.bfloat16)

    def step(self, batch: Batch, answering: bool) -> dict[str, float]:
        """Add the gradients of one batch; the running losses and dense accuracies."""
        bucket, layout = batch.bucket, self.layouts[batch.bucket]
        with torch.autocast("cpu", torch.bfloat16):
            video = self._tower(self.model, self._patches(batch.frames), *grid(bucket))
            loss, report = self.heads.tower_loss(video, batch.dense)
            if answering:
                ids, lengths, right = encode_blocks(self.tokenizer, batch.questions, batch.answers)
                logits, states = self._decode(self.model, layout, video, ids, lengths)
                dense, running = self.heads.decoder_loss(
                    [states[i][:, layout.video] for i in SUPERVISED_LAYERS], batch.dense
                )
                ends = torch.full_like(right, self.tokenizer.eos_token_id)
                each = F.cross_entropy(
                    logits.float().flatten(0, 2), torch.stack([right, ends], -1).flatten(), reduction="none"
                )
                each = each.view(*right.shape, 2)
                loss = loss + dense + each.sum(-1).mean()
                report |= running | dict(zip(QUESTION_NAMES, each[..., 0].mean(0).tolist(), strict=True))
        torch.autograd.backward(loss)
        return report

    @torch.no_grad()
    def measure(self, bucket: Bucket, clips: int) -> dict[str, float]:
        """Accuracy per question type on held-out clips, all of them through the codec; float32, all tokens."""
        rng = np.random.default_rng((HELD_OUT, bucket.frames, bucket.height, bucket.width))
        right = []
        for _ in range(-(-clips // bucket.batch)):
            batch = make_batch(rng, bucket, codec_share=1.0)
            video = tower(self.model, normalise(patchify(batch.frames).float()), *grid(bucket))
            ids, lengths, wanted = encode_blocks(self.tokenizer, batch.questions, batch.answers)
            logits, _ = decode(self.model, self.layouts[bucket], video, ids, lengths)
            right.append(logits[:, :, 0].argmax(-1) == wanted)
        share = torch.cat(right).float().mean(0)
        return {name: round(value, 3) for name, value in zip(QUESTION_NAMES, share.tolist(), strict=True)}

    def _patches(self, frames: torch.Tensor) -> torch.Tensor:
        """Normalised patches with the disturbances of real files: light, contrast, noise."""
        patches = normalise(patchify(frames).bfloat16())
        batch, count, width = patches.shape
        start = int(torch.randint(self._noise.numel() - count * width, ()))
        noise = self._noise[start : start + count * width].view(1, count, width)
        contrast = 1 + 0.08 * torch.randn(batch, 1, 1, dtype=torch.bfloat16)
        light = 0.08 * torch.randn(batch, 1, 1, dtype=torch.bfloat16)
        strength = 0.12 * torch.rand(batch, 1, 1, dtype=torch.bfloat16)
        return torch.addcmul(patches.mul_(contrast).add_(light), noise, strength)


def normalise(patches: torch.Tensor) -> torch.Tensor:
    """Patches `[..., 1176]` of 0-255 values, normalised per channel; in place."""
    each = patches.shape[-1] // 3
    mean = torch.tensor(IMAGE_MEAN).mul(255).repeat_interleave(each).to(patches.dtype)
    scale = torch.tensor(IMAGE_STD).mul(255).reciprocal().repeat_interleave(each).to(patches.dtype)
    return patches.sub_(mean).mul_(scale)


def schedule(step: int, steps: int, decay: float, warmup: int = 150) -> float:
    """Learning rate as a share of its peak: linear rise, constant, linear fall over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, max(0.01, (steps - step) / max(1.0, decay * steps)))


def grid(bucket: Bucket) -> tuple[int, int]:
    """Rows and columns of visual tokens."""
    return bucket.height // TOKEN_PIXELS, bucket.width // TOKEN_PIXELS


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoint.pt, log.jsonl and model/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument(
        "--decay", type=float, default=0.35, help="share of the steps over which the rate falls to zero"
    )
    parser.add_argument(
        "--tower-steps", type=int, default=300, help="first steps, on the dense targets of the tower alone"
    )
    parser.add_argument("--small-until", type=int, default=1250, help="first steps, on 16 frames of 112 x 112 alone")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--report", type=int, default=50, help="steps between printed losses")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="compile the forward pass"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
