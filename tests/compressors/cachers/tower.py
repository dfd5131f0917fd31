"""A small pre-norm tower in plain torch, whose layers a cacher can take over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compressors.cachers.binding import ReuseBinding
from compressors.cachers.layers import FrameGroup, LayerParts, LayerRunner, LayerStack
from compressors.cachers.stc import STC

WIDTH, MLP, DEPTH = 8, 12, 3


def attend(query: Tensor, key: Tensor, value: Tensor, places: Tensor | None) -> Tensor:
    """One head, as plain matrix products, so that a counter sees them."""
    return (query @ key.transpose(1, 2) * query.shape[2] ** -0.5).softmax(-1) @ value


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, MLP), nn.GELU(), nn.Linear(MLP, WIDTH))

    def parts(self) -> LayerParts:
        def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self.query(x), self.key(x), self.value(x)

        return LayerParts(self.norm1, self.norm2, self.query, self.key, self.value, qkv, attend, self.output, self.mlp)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.output(attend(self.query(normed), self.key(normed), self.value(normed), None))
        return x + self.mlp(self.norm2(x))


class Tower(LayerStack):
    """Takes `[F, N, C]`; `fail` makes the last layer of the next call raise."""

    depth = DEPTH

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH)).requires_grad_(False)
        for weight in self.layers.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape) * 1.5 / weight.shape[1] ** 0.5)
        self.runner: LayerRunner | None = None
        self.fail = False

    def install(self, runner: LayerRunner) -> None:
        self.runner = runner

    def remove(self) -> None:
        self.runner = None

    def __call__(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            if self.fail and number == DEPTH - 1:
                self.fail = False
                raise RuntimeError("the last layer failed")
            if self.runner is not None and self.runner.active:
                group = FrameGroup(x, layer.parts(), (x.shape[1],), (x.shape[0],))  # type: ignore[operator]
                (x,) = self.runner.run(number, [group])
            else:
                x = layer(x)
        return x


def frames(count: int, places: int = 10, seed: int = 1, change: float = 0.3) -> Tensor:
    """A scene in which every place changes a little from frame to frame, and some change more."""
    random = torch.Generator().manual_seed(seed)
    scene = torch.randn(places, WIDTH, generator=random)
    moving = torch.rand(count, places, 1, generator=random) < 0.4
    return scene + (0.1 + moving) * change * torch.randn(count, places, WIDTH, generator=random)


def streamed(cacher: STC, video: Tensor, cuts: Sequence[int] = (), tower: Tower | None = None) -> Tensor:
    """A stream through a tower, in calls of so many frames each; all at once by default."""
    tower = tower or Tower()
    binding = cacher.bind(tower)
    state = binding.new_state()
    with binding.using(state):
        return torch.cat([tower(piece) for piece in video.split(list(cuts) or [len(video)])])


def bound(cacher: STC) -> tuple[Tower, ReuseBinding, Callable[[Tensor], Tensor]]:
    """A tower, a cacher in it, and a call with one stream."""
    tower = Tower()
    binding = cacher.bind(tower)
    state = binding.new_state()

    def call(video: Tensor) -> Tensor:
        with binding.using(state):
            return tower(video)

    return tower, binding, call


def oracle(cacher: STC, video: Tensor) -> Tensor:
    """The definition, frame by frame and place by place: everything is computed, and most of it thrown away.

    Interval and chunk as scheduled from the first frame on, reference the last frame of a full chunk.
    """
    tower, outputs = Tower(), []
    memory: list[dict[str, Tensor]] = [{} for _ in tower.layers]
    chunk, interval = cacher.chunk or len(video), cacher.interval or len(video)
    for number, x in enumerate(video):
        full = number // chunk % interval == 0
        for layer, held in zip(tower.layers, memory, strict=True):
            normed = layer.norm1(x)  # type: ignore[operator]
            q, k, v = layer.query(normed), layer.key(normed), layer.value(normed)  # type: ignore[operator]
            new = {"key": k, "value": v, "input": x}
            if not full:
                new_feature, old = new[cacher.feature], held[cacher.feature]
                measure = {
                    "cosine": lambda a, b: torch.cosine_similarity(a, b, -1),
                    "dot": lambda a, b: (a * b).sum(-1),
                    "l1": lambda a, b: -(a - b).abs().sum(-1),
                    "l2": lambda a, b: -(a - b).norm(dim=-1),
                }[cacher.similarity]
                choose = layer is tower.layers[0] or cacher.selection == "layer"
                if choose:
                    count = int(cacher.update_ratio * len(x) + 0.5)
                    chosen = measure(new_feature, old).argsort(stable=True)[:count]
                    update = torch.zeros(len(x), 1, dtype=torch.bool).index_fill(0, chosen, True)
                if cacher.reuse != "mlp":
                    k = k if choose and cacher.feature == "key" else torch.where(update, k, held["key"])
                    v = v if choose and cacher.feature == "value" else torch.where(update, v, held["value"])
            attention = layer.output(attend(q[None], k[None], v[None], None)[0])  # type: ignore[operator]
            if not full and cacher.reuse != "mlp":
                attention = torch.where(update, attention, held["attention"])
            between = x + attention
            mlp = layer.mlp(layer.norm2(between))  # type: ignore[operator]
            if not full and cacher.reuse != "attention":
                mlp = torch.where(update, mlp, held["mlp"])
            if full:
                held |= {**new, "attention": attention, "mlp": mlp}
            x = between + mlp
        outputs.append(x)
    return torch.stack(outputs)
