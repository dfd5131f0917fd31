"""Truth by hand: keys before their rotary embedding and values, noted while the library's own decoder and cache run.

Nothing of `adapters.streaming` is used: caches are the library's `DynamicCache`, keys get their positions by the
model's own rotary embedding, and what is attended to is written out by the test.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tests.adapters import tiny
from tests.adapters.streaming.streams import QUESTION, clip


@dataclass(eq=False)
class Tokens:
    """Some tokens of a prompt.

    Attributes:
        embeds: `[n, C]`.
        positions: `[axes, n]`.
        visual: `[n]` bool.
        planes: DeepStack rows of the visual ones, per layer.
        keys, values: per layer `[1, heads, n, D]`, the keys before rotary embedding; filled by `Hand.run`.
    """

    embeds: Tensor
    positions: Tensor
    visual: Tensor
    planes: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return self.embeds.shape[0]


# What a layer sees: tokens, how many of them, and how far they are moved on each axis.
Seen = Sequence[tuple[Tokens, int, Sequence[int]]]


class Hand:
    """A stream that is one video, a group at a time, on a tiny model."""

    def __init__(self, family: tiny.Family, model: Any, processor: Any) -> None:
        self.family, self.model, self.processor = family, model, processor
        self.decoder = model.get_decoder()
        self.axes = 3 if family.mrope else 1
        self.group = 2 if family.mrope else 1
        self.module = importlib.import_module(type(self.decoder).__module__)

    def text(self, ids: Sequence[int], at: Sequence[int]) -> Tokens:
        """Text from a position on."""
        embeds = self.model.get_input_embeddings()(torch.tensor(list(ids)))
        steps = torch.arange(len(ids))
        return Tokens(embeds, torch.stack([steps + a for a in at]), torch.zeros(len(ids), dtype=torch.bool))

    def opening(self) -> Tokens:
        start = [tiny.VISION_START] if self.family.mrope and not self.family.timestamps else []
        return self.text([*b"user\n", *start], [0] * self.axes)

    def groups(self, shown: Tensor, first: int) -> tuple[list[Tokens], tuple[int, int]]:
        """Every group's tokens, the first at position `first`, and the grid."""
        inputs = self.processor([""], [clip(shown)])
        base = self.model.base_model
        pixels = inputs["pixel_values_videos"].to(self.model.dtype)
        grid = inputs.get("video_grid_thw")
        output = base.get_video_features(*((pixels,) if grid is None else (pixels, grid)), return_dict=True)
        count = len(shown) // self.group
        h, w = (3, 3) if grid is None else (int(grid[0, 1]) // 2, int(grid[0, 2]) // 2)
        features = output.pooler_output[0][: count * h * w].view(count, h * w, -1)
        planes = [
            self._rows(layer).view(count, h * w, -1) for layer in getattr(output, "deepstack_features", None) or ()
        ]
        place, found, at = torch.arange(h * w), [], first
        for i in range(count):
            if not self.family.mrope:
                positions = (at + place).unsqueeze(0)
                at += h * w
            elif not self.family.timestamps:
                positions = torch.stack([torch.full_like(place, first + i), first + place // w, first + place % w])
            else:
                before = self.text([*f"<{i + 0.5:.1f} seconds>".encode(), tiny.VISION_START], [at] * 3)
                at += len(before)
                after = self.text([tiny.VISION_END], [at + max(h, w)] * 3)
                positions = torch.stack([torch.full_like(place, at), at + place // w, at + place % w])
                at += max(h, w) + 1
            rows = Tokens(features[i], positions, torch.ones(h * w, dtype=torch.bool), [p[i] for p in planes])
            if self.family.timestamps:
                parts = (before, rows, after)
                rows = Tokens(
                    torch.cat([p.embeds for p in parts]),
                    torch.cat([p.positions for p in parts], dim=1),
                    torch.cat([p.visual for p in parts]),
                    rows.planes,
                )
            found.append(rows)
        return found, (h, w)

    def question(self, at: Sequence[int], text: str = QUESTION) -> Tokens:
        """The end of the video and the question."""
        ids = [*text.encode(), *b"\nassistant\n"]
        if self.family.mrope and not self.family.timestamps:
            ids = [tiny.VISION_END, *ids]
        tokens = self.text(ids, at)
        if not self.family.newline:
            return tokens
        newline = self.model.base_model.image_newline[None]
        rest = self.text(ids, [a + 1 for a in at])
        positions = torch.cat([tokens.positions[:, :1], rest.positions], dim=1)
        return Tokens(torch.cat([newline, rest.embeds]), positions, torch.zeros(len(ids) + 1, dtype=torch.bool))

    def roped(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys `[1, heads, n, D]` with the model's own rotary embedding at positions `[axes, n]`."""
        ids = positions.unsqueeze(1) if self.axes == 3 else positions
        cosine, sine = self.decoder.rotary_emb(keys, ids)
        moved: Tensor = self.module.apply_rotary_pos_emb(keys, keys, cosine, sine)[1]
        return moved

    @torch.no_grad()
    def run(self, tokens: Tokens, seen: Sequence[Seen]) -> tuple[Tensor, list[Tensor]]:
        """Logits `[V]` after the tokens, given what each layer sees before them; and each layer's queries `[n, …]`.

        The tokens' own keys and values are noted on them.
        """
        cache = DynamicCache()
        for layer, parts in enumerate(seen):
            for part, count, moved in parts:
                positions = part.positions[:, :count] + torch.tensor(list(moved)).unsqueeze(1)
                cache.update(
                    self.roped(part.keys[layer][:, :, :count], positions), part.values[layer][:, :, :count], layer
                )
        queries: list[Tensor] = []
        tokens.keys, tokens.values, handles = [], [], []
        for layer in self.decoder.layers:
            attention = layer.self_attn
            width = attention.head_dim

            def note(into: list[Tensor], width: int = width) -> Any:
                def hook(module: Any, args: Any, out: Tensor) -> None:
                    into.append(out.reshape(1, len(tokens), -1, width).transpose(1, 2).clone())

                return hook

            for name, into in (("k", tokens.keys), ("q", queries)):
                module = getattr(attention, f"{name}_norm", getattr(attention, f"{name}_proj"))
                handles.append(module.register_forward_hook(note(into)))
            handles.append(attention.v_proj.register_forward_hook(note(tokens.values)))
        extra = {}
        if tokens.planes:
            extra = {"visual_pos_masks": tokens.visual.unsqueeze(0), "deepstack_visual_embeds": tokens.planes}
        out = self.decoder(
            inputs_embeds=tokens.embeds.unsqueeze(0),
            position_ids=tokens.positions.unsqueeze(1) if self.axes == 3 else tokens.positions,
            past_key_values=cache,
            **extra,
        )
        for handle in handles:
            handle.remove()
        logits: Tensor = self.model.lm_head(out.last_hidden_state[:, -1])[0]
        return logits, queries

    @staticmethod
    def _rows(layer: Any) -> Tensor:
        return layer if isinstance(layer, Tensor) else torch.cat(list(layer))
