"""The model's forward pass as training needs it: many clips of one size at once, on the model's own modules.

The library's vision tower attends to one frame pair after another; with hundreds of them in a batch that loop is most
of the time. `tower` computes the same in one call per layer (a test holds it to the library's result).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Qwen2VLForConditionalGeneration

from experiments.micro.batches import Layout
from experiments.micro.clips import BACKGROUND_COUNT, COLOUR_NAMES, DIRECTIONS, FLASH_SHAPES, MAX_SCENES, MOVER_SHAPES


def tower(model: Qwen2VLForConditionalGeneration, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Merged visual tokens `[B, T * N, D]` of patches `[B, T * 4 * N, 1176]`, N = rows * columns tokens per pair."""
    visual: Any = model.model.visual
    batch, count, _ = patches.shape
    per_pair = rows * columns * 4
    embed = visual.patch_embed.proj.weight
    x = F.linear(patches, embed.flatten(1)).view(batch * count // per_pair, per_pair, -1)
    cos, sin = (t[None, :, None] for t in visual.rotary_pos_emb(x, _patch_positions(rows, columns)))
    for block in visual.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).view(*x.shape[:2], 3, attention.num_heads, -1).unbind(2)
        q, k = q * cos + _rotate(q) * sin, k * cos + _rotate(k) * sin
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        # Written out: on a CPU the fused kernel's backward is slower than two matrix products for such short rows.
        weights = torch.softmax(q @ k.transpose(2, 3) * attention.scaling, dim=-1).to(v.dtype)
        mixed = (weights @ v).transpose(1, 2).reshape(x.shape)
        x = x + attention.proj(mixed)
        x = x + block.mlp(block.norm2(x))
    merged: torch.Tensor = visual.merger(x)
    return merged.view(batch, count // 4, -1)


def decode(
    model: Qwen2VLForConditionalGeneration,
    layout: Layout,
    video: torch.Tensor,
    text: torch.Tensor,
    lengths: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run the decoder on packed sequences.

    Args:
        video: tokens `[B, T * N, D]`; text: block ids `[B, blocks * BLOCK]`; lengths: prompt lengths `[B, blocks]`.

    Returns:
        Logits `[B, blocks, 2, V]` at the last prompt token and at the answer, and every layer's output `[B, L, D]`.
    """
    decoder = model.model.language_model
    batch = video.shape[0]
    prefix = decoder.embed_tokens(layout.prefix)
    head = prefix[: layout.video.start].expand(batch, -1, -1)
    end = prefix[layout.video.stop :].expand(batch, -1, -1)
    x = torch.cat([head, video.to(prefix.dtype), end, decoder.embed_tokens(text)], dim=1)
    positions = decoder.rotary_emb(x, layout.positions)
    states = []
    for layer in decoder.layers:
        x = layer(x, attention_mask=layout.mask, position_embeddings=positions)
        states.append(x)
    blocks = decoder.norm(x[:, layout.text_start :]).view(batch, lengths.shape[1], -1, x.shape[-1])
    at = torch.stack([lengths - 1, lengths], dim=-1)[..., None].expand(-1, -1, -1, x.shape[-1])
    return model.lm_head(blocks.gather(2, at)), states


# Dense targets (see clips.token_targets) and their numbers of classes.
TOWER_TARGETS = {
    "object": 1 + len(MOVER_SHAPES) + len(FLASH_SHAPES),
    "colour": len(COLOUR_NAMES),
    "direction": len(DIRECTIONS),
    "background": BACKGROUND_COUNT,
}
DECODER_TARGETS = {"scene": MAX_SCENES, "flashed": 2}


class DenseHeads(nn.Module):
    """Linear read-outs that exist in training only: what each visual token shows, and what each has seen so far."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.tower = nn.Linear(width, sum(TOWER_TARGETS.values()))
        self.decoder = nn.ModuleList(nn.Linear(width, sum(DECODER_TARGETS.values())) for _ in range(depth))

    def tower_loss(
        self, video: torch.Tensor, targets: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return _dense_loss(self.tower(video), TOWER_TARGETS, targets)

    def decoder_loss(
        self, states: list[torch.Tensor], targets: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean over the given layers' video states `[B, T * N, D]`; the accuracies are the last one's."""
        results = [
            _dense_loss(head(F.layer_norm(x, x.shape[-1:])), DECODER_TARGETS, targets)
            for head, x in zip(self.decoder, states, strict=True)
        ]
        return torch.stack([loss for loss, _ in results]).mean(), results[-1][1]


def _dense_loss(
    logits: torch.Tensor, sizes: dict[str, int], targets: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    total, right = logits.new_zeros((), dtype=torch.float32), {}
    for (name, size), part in zip(
        sizes.items(), torch.split(logits.float(), list(sizes.values()), dim=-1), strict=True
    ):
        wanted = targets[name].flatten(1)
        if name == "object":  # objects cover few tokens: give the empty ones as much weight in all as the full ones
            weight = torch.ones(size)
            weight[0] = (wanted > 0).sum() / (wanted == 0).sum().clamp(min=1)
            total = total + F.cross_entropy(part.flatten(0, 1), wanted.flatten(), weight=weight)
        else:
            total = total + F.cross_entropy(part.flatten(0, 1), wanted.flatten())
        known = wanted > 0 if name == "object" else wanted >= 0
        right[name] = (part.argmax(-1) == wanted)[known].float().mean().item()
    return total, right


def _rotate(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def _patch_positions(rows: int, columns: int) -> torch.Tensor:
    """Row and column of every patch of a frame pair, merged-token order: `[4 * rows * columns, 2]`."""
    row, column = torch.meshgrid(torch.arange(2 * rows), torch.arange(2 * columns), indexing="ij")
    order = torch.stack([row, column]).view(2, rows, 2, columns, 2).permute(0, 1, 3, 2, 4)
    return order.reshape(2, -1).T
