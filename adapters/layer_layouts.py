"""Layer layouts: how the layers of a vision tower are built, so that a cacher can run them in pieces.

A layout is told by the layers' attributes, not by their class, so it covers towers that ship their own copies of SigLIP
or CLIP. `register_layer_layout` adds one for a tower built otherwise.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import modeling_utils

from adapters.errors import UnsupportedError
from compressors.cachers.layers import FrameGroup, LayerParts

Grid = tuple[int, int, int]  # temporal groups, patches high, patches wide


class LayerLayout(ABC):
    """How one kind of layer is built and called.

    Attributes:
        name: for error messages.
        packed: the tower takes `grid_thw`, and its layers get all frames' patches in one row.
    """

    name: ClassVar[str]
    packed: ClassVar[bool] = False

    @abstractmethod
    def fits(self, layer: nn.Module) -> bool:
        """Whether a layer is built this way."""

    @abstractmethod
    def groups(
        self,
        layer: nn.Module,
        hidden: Tensor,
        arguments: Mapping[str, Any],
        grids: Sequence[Grid],
        memo: dict[Any, Any],
    ) -> list[FrameGroup]:
        """A call of the layer in frames, with the layer in pieces.

        Args:
            layer: the layer.
            hidden: its input.
            arguments: its other arguments, by name.
            grids: the tower's `grid_thw` on the host; empty in a tower that is not packed.
            memo: empty at the first layer of a call of the tower, and kept until its last.

        Raises:
            UnsupportedError: the call asks for something that reuse cannot give.
        """

    def result(self, layer: nn.Module, outputs: Sequence[Tensor], hidden: Tensor) -> Any:
        """What the layer's forward returns, from the groups' outputs."""
        whole = outputs[0] if len(outputs) == 1 else torch.cat([out.flatten(0, 1) for out in outputs])
        return whole.view(hidden.shape)


_LAYOUTS: dict[str, LayerLayout] = {}


def register_layer_layout(cls: type[LayerLayout]) -> type[LayerLayout]:
    """Class decorator: add a layout. The latest comes first, so a special layout may stand before a general one."""
    _LAYOUTS.pop(cls.name, None)
    _LAYOUTS[cls.name] = cls()
    return cls


def layout_of(layer: nn.Module) -> LayerLayout | None:
    """The layout that a layer has."""
    return next((layout for layout in reversed(_LAYOUTS.values()) if layout.fits(layer)), None)


def layouts() -> list[str]:
    """Their names."""
    return list(_LAYOUTS)


@register_layer_layout
class SeparateProjections(LayerLayout):
    """SigLIP and CLIP: `layer_norm1`, `self_attn.{q,k,v,out}_proj`, `layer_norm2`, `mlp`; `[F, N, C]`, frames as batch.

    Layers of older libraries, which take `output_attentions` and return a tuple, too.
    """

    name = "siglip/clip"
    _children = ("layer_norm1", "layer_norm2", "mlp", "self_attn")
    _projections = ("q_proj", "k_proj", "v_proj", "out_proj")

    def fits(self, layer: nn.Module) -> bool:
        attention = getattr(layer, "self_attn", None)
        return all(isinstance(getattr(layer, child, None), nn.Module) for child in self._children) and all(
            isinstance(getattr(attention, name, None), nn.Module) for name in self._projections
        )

    def groups(
        self, layer: Any, hidden: Tensor, arguments: Mapping[str, Any], grids: Sequence[Grid], memo: dict[Any, Any]
    ) -> list[FrameGroup]:
        refuse_masks(layer, arguments)
        attention = layer.self_attn
        heads = attention.num_heads
        function = attention_function(attention)

        def attend(query: Tensor, key: Tensor, value: Tensor, places: Tensor | None) -> Tensor:
            return function(*(_heads(x, heads) for x in (query, key, value))).flatten(2)

        parts = LayerParts(
            norm1=layer.layer_norm1,
            norm2=layer.layer_norm2,
            query=attention.q_proj,
            key=attention.k_proj,
            value=attention.v_proj,
            qkv=lambda x: (attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)),
            attend=attend,
            output=attention.out_proj,
            mlp=layer.mlp,
        )
        return [FrameGroup(hidden, parts, (hidden.shape[1],), (hidden.shape[0],))]

    def result(self, layer: nn.Module, outputs: Sequence[Tensor], hidden: Tensor) -> Any:
        out = super().result(layer, outputs, hidden)
        return (out,) if "output_attentions" in inspect.signature(type(layer).forward).parameters else out


@register_layer_layout
class FusedPacked(LayerLayout):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL: `norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp`; `[P, C]` with 2-D rotary
    embedding, frames or windows of frames told apart by cumulative lengths."""

    name = "qwen-vl"
    packed = True
    _children = ("norm1", "norm2", "mlp", "attn")

    def fits(self, layer: nn.Module) -> bool:
        attention = getattr(layer, "attn", None)
        return (
            all(isinstance(getattr(layer, child, None), nn.Module) for child in self._children)
            and isinstance(getattr(attention, "qkv", None), nn.Module)
            and isinstance(getattr(attention, "proj", None), nn.Module)
            and hasattr(attention, "num_heads")
            and "cu_seqlens" in inspect.signature(type(layer).forward).parameters
        )

    def groups(
        self, layer: Any, hidden: Tensor, arguments: Mapping[str, Any], grids: Sequence[Grid], memo: dict[Any, Any]
    ) -> list[FrameGroup]:
        refuse_masks(layer, arguments)
        if type(layer.attn.qkv) is not nn.Linear:
            raise UnsupportedError(
                f"a cacher takes the fused projection of {type(layer.attn).__name__} apart, so it must be a plain "
                f"nn.Linear, not {type(layer.attn.qkv).__name__}: load the tower without quantisation or adapters."
            )
        lengths = _frame_segments(arguments["cu_seqlens"], grids, memo)
        cosine, sine = arguments["position_embeddings"]
        found, start = [], 0
        for rows, (height, width) in _runs(grids):
            frames, places = sum(rows), height * width
            end = start + frames * places
            windows = None if lengths is None else lengths[start]
            rotary = (cosine[start : start + places], sine[start : start + places])
            parts = self._parts(layer, rotary, windows)
            found.append(FrameGroup(hidden[start:end].view(frames, places, -1), parts, (height, width), rows))
            start = end
        return found

    def _parts(self, layer: Any, rotary: tuple[Tensor, Tensor], windows: Sequence[int] | None) -> LayerParts:
        attention = layer.attn
        qkv, heads = attention.qkv, attention.num_heads
        width = qkv.in_features
        function = attention_function(attention)

        def project(part: int) -> Callable[[Tensor], Tensor]:
            rows = slice(part * width, (part + 1) * width)
            bias = None if qkv.bias is None else qkv.bias[rows]
            return lambda x: nn.functional.linear(x, qkv.weight[rows], bias)

        def attend(query: Tensor, key: Tensor, value: Tensor, places: Tensor | None) -> Tensor:
            cosine, sine = rotary
            q, k, v = (x.view(*x.shape[:2], heads, -1) for x in (query, key, value))
            k = _rotate(k, cosine, sine)
            q = _rotate(q, cosine, sine) if places is None else _rotate(q, cosine[places], sine[places])
            if windows is None:
                return function(*(x.transpose(1, 2) for x in (q, k, v))).flatten(2)
            if places is not None:
                # Updated places fall into windows unevenly. Attention inside windows is cheap: all places' rows are
                # made, those that are not updated of zeros, and only the updated ones are used.
                index = places[..., None, None].expand(-1, -1, *q.shape[2:])
                q = k.new_zeros(q.shape[0], *k.shape[1:]).scatter(1, index, q)
            out = _windowed(function, q, k, v, windows).flatten(2)
            return out if places is None else out.gather(1, places[..., None].expand(-1, -1, out.shape[2]))

        return LayerParts(
            norm1=layer.norm1,
            norm2=layer.norm2,
            query=project(0),
            key=project(1),
            value=project(2),
            qkv=lambda x: qkv(x).chunk(3, dim=-1),
            attend=attend,
            output=attention.proj,
            mlp=layer.mlp,
        )


def attention_function(module: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(q `[F, H, U, d]`, k, v `[F, H, N, d]`) -> `[F, U, H, d]`, by the implementation that a module is set to.

    Modules without a configuration of this library (towers that ship their own) get scaled dot-product attention.
    """
    scale = next((getattr(module, name) for name in ("scaling", "scale") if hasattr(module, name)), None)
    rate = next((getattr(module, name) for name in ("dropout", "attention_dropout") if hasattr(module, name)), 0.0)
    dropout = float(rate) if module.training and isinstance(rate, (int, float)) else 0.0
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    library = vars(sys.modules[type(module).__module__])
    eager = library.get("eager_attention_forward")
    if implementation is None or eager is None:
        return lambda q, k, v: nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scale
        ).transpose(1, 2)
    functions = library.get("ALL_ATTENTION_FUNCTIONS", modeling_utils.ALL_ATTENTION_FUNCTIONS)
    chosen = functions.get_interface(implementation, eager)
    return lambda q, k, v: chosen(module, q, k, v, None, scaling=scale, dropout=dropout, is_causal=False)[0]


def refuse_masks(layer: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Raise on what a layer may be asked for that reuse cannot give.

    Raises:
        UnsupportedError: a mask, or attention as output.
    """
    for name in ("attention_mask", "causal_attention_mask"):
        if arguments.get(name) is not None:
            raise UnsupportedError(f"{type(layer).__name__} was called with {name}: a cacher takes whole frames only.")
    if arguments.get("output_attentions"):
        raise UnsupportedError("output_attentions=True: with a cacher most rows of attention are never computed.")


def _heads(features: Tensor, heads: int) -> Tensor:
    """`[F, N, C]` -> `[F, H, N, d]`."""
    return features.view(*features.shape[:2], heads, -1).transpose(1, 2)


def _rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding in float32: `[F, N, H, d]` by `[(F,) N, d]`."""
    x = features.float()
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cosine.unsqueeze(-2).float() + turned * sine.unsqueeze(-2).float()).to(features.dtype)


def _windowed(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, windows: Sequence[int]
) -> Tensor:
    """Attention inside the windows of every frame, `[F, N, H, d]`; neighbours of one length go together."""
    outputs, start, at = [], 0, 0
    while at < len(windows):
        length, count = windows[at], 1
        while at + count < len(windows) and windows[at + count] == length:
            count += 1
        end = start + length * count
        cut = [x[:, start:end].reshape(-1, length, *x.shape[2:]).transpose(1, 2) for x in (q, k, v)]
        outputs.append(function(*cut).reshape(q.shape[0], end - start, *q.shape[2:]))
        start, at = end, at + count
    return torch.cat(outputs, dim=1)


def _runs(grids: Sequence[Grid]) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
    """Neighbouring grid rows of one frame size: (their numbers of frames, (height, width))."""
    runs: list[tuple[tuple[int, ...], tuple[int, int]]] = []
    for frames, *size in grids:
        same = runs and runs[-1][1] == tuple(size)
        before = runs.pop()[0] if same else ()
        runs.append(((*before, frames), (size[0], size[1])))
    return runs


def _frame_segments(
    cumulative: Tensor, grids: Sequence[Grid], memo: dict[Any, Any]
) -> Mapping[int, Sequence[int]] | None:
    """By the place where a frame starts, the lengths of its windows; None where every frame is one segment.

    The lengths are read on the host, once per call of the tower.
    """
    if cumulative.shape[0] - 1 == sum(frames for frames, _, _ in grids):
        return None
    key = ("windows", id(cumulative))
    if key not in memo:
        memo[key] = (cumulative, _windows_of_frames(cumulative.tolist(), grids))  # the id is its own while it lives
    found: Mapping[int, Sequence[int]] = memo[key][1]
    return found


def _windows_of_frames(ends: Sequence[int], grids: Sequence[Grid]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    at, start = 0, 0
    for frames, height, width in grids:
        for _ in range(frames):
            windows, end = [], start + height * width
            while ends[at] < end:
                at += 1
                if ends[at] > ends[at - 1]:
                    windows.append(ends[at] - ends[at - 1])
            found[start], start = windows, end
    return found
