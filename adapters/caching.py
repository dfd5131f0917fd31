"""`bind_cacher`: a cacher in a model's vision tower, on the instance, removable without a trace."""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.errors import AlreadyBound, UnsupportedError
from adapters.family import family_of
from adapters.layer_layouts import Grid, LayerLayout, layout_of, layouts
from compressors.base import CacheBinding, CacheReuser, CacheState
from compressors.cachers.layers import LayerRunner, LayerStack
from compressors.registry import make
from compressors.requirements import Attention, Keys, Requirement


class TowerLayers(LayerStack):
    """The layers of one tower, whose `forward` is shadowed by an instance attribute while a cacher is installed."""

    def __init__(self, tower: nn.Module, layers: Sequence[nn.Module], layout: LayerLayout) -> None:
        self.tower, self.layers, self.layout = tower, list(layers), layout
        self.depth = len(self.layers)
        self._local = threading.local()
        self._undo: list[Callable[[], None]] = []

    def install(self, runner: LayerRunner) -> None:
        if self.layout.packed:
            hook = self.tower.register_forward_pre_hook(self._note_grid(runner), with_kwargs=True)
            self._undo.append(hook.remove)
        for number, layer in enumerate(self.layers):
            shadowed = vars(layer).get("forward")
            # On the instance, and with the layer as an argument: hooks, parameter names and the class stay as they
            # are, and a deep copy of the model runs its own weights.
            vars(layer)["forward"] = types.MethodType(self._forward(runner, number, shadowed), layer)
            self._undo.append(functools.partial(_put_back, layer, shadowed))

    def remove(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _forward(self, runner: LayerRunner, number: int, shadowed: Any) -> Callable[..., Any]:
        names = [name for name in inspect.signature(type(self.layers[number]).forward).parameters if name != "self"]

        def forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not runner.active:
                return (
                    shadowed(*args, **kwargs) if shadowed is not None else type(layer).forward(layer, *args, **kwargs)
                )
            arguments = dict(zip(names, args, strict=False)) | kwargs
            hidden = cast(Tensor, arguments.pop(names[0]))
            if number == 0:
                self._local.memo = {}
            grids = getattr(self._local, "grids", ()) if self.layout.packed else ()
            if not hidden.shape[0] or (self.layout.packed and hidden.shape[0] != sum(t * h * w for t, h, w in grids)):
                raise UnsupportedError(
                    f"{type(self.tower).__name__}: a cacher needs the tower called as a whole, with at least one frame."
                )
            groups = self.layout.groups(layer, hidden, arguments, grids, self._local.memo)
            return self.layout.result(layer, runner.run(number, groups), hidden)

        return forward

    def _note_grid(self, runner: LayerRunner) -> Callable[..., None]:
        names = list(inspect.signature(self.tower.forward).parameters)

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if runner.active:
                grid = {**dict(zip(names, args, strict=False)), **kwargs}["grid_thw"]
                self._local.grids = [cast(Grid, tuple(row)) for row in torch.as_tensor(grid).tolist()]

        return note


def _put_back(layer: nn.Module, shadowed: Any) -> None:
    if shadowed is None:
        vars(layer).pop("forward", None)
    else:
        vars(layer)["forward"] = shadowed


class SharedBinding(CacheBinding):
    """One user's handle on the cacher in a tower; equal cachers share what is in the tower until the last is removed.

    Attributes:
        cacher: what is bound.
        inner: what the users share.
    """

    def __init__(self, tower: nn.Module, bound: _Bound) -> None:
        self._tower, self._bound, self._removed = tower, bound, False
        self.cacher, self.inner = bound.cacher, bound.inner
        bound.users += 1

    def new_state(self, *, keep: bool = True) -> CacheState:
        return self.inner.new_state(keep=keep)

    def using(
        self, state: CacheState | Sequence[CacheState], frames: Sequence[int] | None = None
    ) -> AbstractContextManager[None]:
        if self._removed:
            raise UnsupportedError("this cacher was removed from its tower: bind it again.")
        return self.inner.using(state, frames)

    def remove(self) -> None:
        with _lock:
            if not self._removed:
                self._removed = True
                self._bound.users -= 1
                if not self._bound.users:
                    del vars(self._tower)[_BOUND]
                    self.inner.remove()


class _Bound:
    """What is in a tower, and how many use it. A deep copy of a model is another model, with no cacher of its own."""

    def __init__(self, cacher: CacheReuser, inner: CacheBinding) -> None:
        self.cacher, self.inner, self.users = cacher, inner, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


_BOUND = "_vidpress_cacher"
_lock = threading.RLock()


def bind_cacher(
    model: PreTrainedModel | nn.Module, cacher: str | Mapping[str, Any] | CacheReuser, **params: Any
) -> SharedBinding:
    """Put a cacher into a model's vision tower.

    Nothing changes until a `using(state)` block of the binding runs; outside, and in other threads, the tower computes
    bit for bit what it did. Bind after the model is on its devices, before `torch.compile`.

    Args:
        model: a model of a known family, a vision tower, or any module with one tower of a known layer layout in it.
        cacher: a name, `{"name": …, params}` or an instance.
        **params: parameters of a cacher given by name.

    Returns:
        a binding. Further calls with an equal cacher share what is in the tower (several streaming sessions on one
        model); each binding is removed by its own `remove()`.

    Raises:
        UnsupportedError: no vision tower of a known layer layout.
        AlreadyBound: another cacher is in the tower.
        UnknownNameError, BuildError: the cacher.

    Example:
        >>> binding = bind_cacher(model, "stc", interval=2, update_ratio=0.25)
        >>> state = binding.new_state()
        >>> for frames in stream:
        ...     with binding.using(state):
        ...         features = model.get_video_features(**frames)
        >>> binding.remove()
    """
    if isinstance(cacher, str):
        cacher = {"name": cacher, **params}
    elif params:
        raise UnsupportedError(f"a cacher that is made already takes no {', '.join(params)}: set them when making it.")
    made = cast(CacheReuser, make("cacher", cacher))
    tower, layers, layout = tower_layers(model)
    with _lock:
        bound: _Bound | None = vars(tower).get(_BOUND)
        if bound is None:
            bound = _Bound(made, made.bind(TowerLayers(tower, layers, layout)))
            vars(tower)[_BOUND] = bound
        elif bound.cacher != made:
            raise AlreadyBound(
                f"this {type(tower).__name__} has a cacher already, {bound.cacher}: remove() that one, or use an equal "
                f"one, which shares it."
            )
        return SharedBinding(tower, bound)


def tower_layers(model: nn.Module) -> tuple[nn.Module, Sequence[nn.Module], LayerLayout]:
    """A model's vision tower, its layers and their layout.

    Raises:
        UnsupportedError: none is found, or several.
    """
    searched = model
    if isinstance(model, PreTrainedModel) and hasattr(model, "get_decoder"):
        try:
            tower = family_of(model).tower(model)
        except UnsupportedError:
            tower = None  # of no known family: look for its tower by the layout of its layers
        searched = tower.module if tower is not None else model
    found = list(_stacks(searched))
    if len(found) != 1:
        many = f"{len(found)} stacks of layers" if found else "no stack of layers"
        raise UnsupportedError(
            f"{type(searched).__name__} has {many} of a known layout ({', '.join(layouts())}): pass the vision tower "
            f"itself, or register its layout with adapters.layer_layouts.register_layer_layout."
        )
    return found[0]


def _stacks(module: nn.Module) -> Iterator[tuple[nn.Module, Sequence[nn.Module], LayerLayout]]:
    """Every list of layers of one known layout, with the module that is called with the frames."""
    parents = {id(child): parent for parent in module.modules() for child in parent.children()}
    for candidate in module.modules():
        if not isinstance(candidate, nn.ModuleList) or not len(candidate):
            continue
        layout = layout_of(candidate[0])
        if layout is not None and all(layout.fits(layer) for layer in candidate):
            # A packed tower holds its layers itself; elsewhere the module only names the binding.
            yield parents.get(id(candidate), candidate), list(candidate), layout


def conflict(cacher: CacheReuser | None, need: Requirement) -> str | None:
    """Why a method's need cannot be met while a cacher works in the tower; None if it can."""
    inside = isinstance(need, Keys) or (isinstance(need, Attention) and need.row != "pool_head")
    if cacher is None or not inside:
        return None
    return f"cacher {cacher.name} skips most of the tower's attention, so it cannot be read there (use cacher=none)"
