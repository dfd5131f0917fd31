"""`Tower`: what taps must know about a vision tower, and the two ways in which towers are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compressors.requirements import Attention, Keys, Requirement


@dataclass(frozen=True, eq=False)
class Tower:
    """A vision tower.

    Attributes:
        module: the tower; its output has `last_hidden_state`.
        attentions: its attention modules, first layer first.
        packed: all patches in one sequence, cut into frames (or windows) by the attention; else frames are the batch.
        class_token: the first place of every frame is a class token.
        head: its attention pooling head, or None.
        pooled: its output's `pooler_output` is one vector per frame.
    """

    module: nn.Module
    attentions: Sequence[nn.Module]
    packed: bool
    class_token: bool = False
    head: nn.Module | None = None
    pooled: bool = False

    @property
    def kind(self) -> str:
        """The tower's class, for error messages."""
        return type(self.module).__name__

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer, counted from the end when negative."""
        return self.attentions[layer]

    def lacks(self, need: Requirement) -> str | None:
        """Why the tower cannot give this attention or these keys; None if it can."""
        if isinstance(need, Attention) and need.row == "pool_head":
            # The head is behind the last layer, so the layer asked for says nothing.
            return None if self.head is not None else f"{self.kind} has no attention pooling head (use row=column_mean)"
        if isinstance(need, (Attention, Keys)):
            depth = len(self.attentions)
            if not -depth <= need.layer < depth:
                return f"{self.kind} has {depth} layers"
        if isinstance(need, Attention) and need.row == "cls" and not self.class_token:
            return f"{self.kind} has no class token (use row=column_mean)"
        return None


def batched_tower(module: nn.Module) -> Tower:
    """A tower in the manner of CLIP and SigLIP: `[F, n, C]` through `encoder.layers[i].self_attn`, frames as batch."""
    head = getattr(module, "head", None)
    head = head if hasattr(head, "probe") and hasattr(head, "attention") else None
    class_token = hasattr(module.embeddings, "class_embedding")
    layers: Sequence[nn.Module] = list(module.encoder.layers)  # type: ignore[union-attr, arg-type]
    attentions = [layer.get_submodule("self_attn") for layer in layers]
    return Tower(module, attentions, False, class_token, head, pooled=head is not None or class_token)


def packed_tower(module: nn.Module) -> Tower:
    """A tower in the manner of Qwen: `[P, C]` through `blocks[i].attn`, frames told apart by cumulative lengths."""
    blocks: Sequence[nn.Module] = list(module.blocks)  # type: ignore[arg-type]
    return Tower(module, [block.get_submodule("attn") for block in blocks], packed=True)


_KEYS = ("k_proj", "k")  # names of a linear layer for keys alone


def key_projection(attention: nn.Module) -> nn.Module:
    """The linear layer of an attention module that gives its keys, alone or between queries and values."""
    return attention.get_submodule(next(name for name in (*_KEYS, "qkv") if hasattr(attention, name)))


def mean_key(attention: nn.Module, projected: Tensor) -> Tensor:
    """Keys averaged over heads: what `key_projection` returned, `[..., C]` or `[..., 3C]` -> `[..., d]` float32."""
    if not any(hasattr(attention, name) for name in _KEYS):
        projected = projected.chunk(3, dim=-1)[1]
    heads = getattr(attention, "num_heads", None) or projected.shape[-1] // int(attention.head_dim)  # type: ignore[arg-type]
    return projected.detach().reshape(*projected.shape[:-1], heads, -1).float().mean(-2)
