"""The masked loss: encode visible tokens, predict masked ones, compare with a target encoding of the whole input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.video import AllLevels
from jepa_mpc.interfaces import Batch, MaskSampler, Regulariser
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss, Masks
from jepa_mpc.world_model.parts.distances import AbsoluteError, Distance
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.objectives.seen import SeenLoss
from jepa_mpc.world_model.parts.targets import FrozenTarget, SharedTarget

Prepare = Callable[[Tensor], Tensor]
Otherwise = Callable[[Batch], Tensor]
Change = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class MaskTask:
    """One masking scheme.

    Args:
        name: Name of its term in the log.
        sampler: Draws the masks.
        hints: Further arguments of the predictor, e.g. which mask token to use.
        weight: Weight of the task in the loss of its stream, relative to the other tasks.
    """

    name: str
    sampler: MaskSampler
    hints: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Prevents collapse of the predicted tokens of a sample.

        loss = mean over channels of max(0, 1 - mean over tasks of sqrt(variance over the predicted tokens + 1e-4))

    Args:
        weight: Weight of the loss; 0 only logs it.

    Reference: the regulariser in the released code of V-JEPA (arXiv:2404.08471), whose trainings have weight 0.
    """

    weight: float = 0.0

    def __call__(self, predicted: Sequence[Tensor]) -> Tensor:
        """A scalar for the predicted tokens `(B, L, D)` of each task."""
        spreads = torch.stack([(tokens.var(dim=1) + 1e-4).sqrt() for tokens in predicted])
        return (1 - spreads.mean(dim=0)).relu().mean()


class Stream(nn.Module):
    """One kind of input and its mask tasks.

    Args:
        key: Its entry in the batch.
        tasks: All mask tasks; their losses are averaged by weight.
        prepare: Maps the entry to the encoder's input.
        augment: Augments the raw entry in training mode, or None.
        weight: Weight of the stream in the loss.
        otherwise: Computes the entry from others if the batch lacks it; by default the stream is then skipped.
        num_tokens: Expected number of tokens of one sample, if the stream checks it.
        side: Expected height and width of its images in pixels, if the stream checks it.

    Raises:
        ValueError: If there is no task or names repeat.
    """

    def __init__(
        self,
        key: str,
        tasks: Sequence[MaskTask],
        *,
        prepare: Prepare | None = None,
        augment: Change | None = None,
        weight: float = 1.0,
        otherwise: Otherwise | None = None,
        num_tokens: int | None = None,
        side: int | None = None,
    ) -> None:
        super().__init__()
        names = [task.name for task in tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a stream needs mask tasks with names of their own, got {names}")
        self.key, self.tasks, self.weight = key, tuple(tasks), weight
        self.prepare = prepare or nn.Identity()
        self.augment = augment
        self.otherwise = otherwise
        self.num_tokens, self.side = num_tokens, side

    def finds(self, batch: Batch) -> bool:
        """Whether the batch has an input for this stream."""
        return self.key in batch or (self.otherwise is not None and "frames" in batch)

    def check(self, x: Any, targets: Tensor) -> None:
        """Refuse inputs x whose size or tokens `B N D` do not fit the masks.

        Raises:
            ValueError: Names both numbers.
        """
        if self.side is not None and tuple(x.shape[-2:]) != (self.side, self.side):
            raise ValueError(
                f"the masks of {self.key!r} are made for images of {self.side} x {self.side}, got "
                f"{' x '.join(map(str, x.shape[-2:]))}: pass image_size={self.side}, or another ++system.image"
            )
        if self.num_tokens not in (None, targets.shape[1]):
            raise ValueError(
                f"the masks of {self.key!r} are made for {self.num_tokens} tokens and the inputs give "
                f"{targets.shape[1]}: set ++system.image and ++system.frames to those of the data"
            )

    def hide(self, task: MaskTask, x: Any, generator: Generator) -> Masks:
        """The masks of a task for inputs x."""
        return task.sampler(len(x), generator)

    def places(self, x: Any, at: Tensor) -> Tensor:
        """Positions of the tokens with indices `B L`, as input of the predictor: by default the indices themselves."""
        return at

    def take(self, batch: Batch, generator: Generator) -> Any:
        """The encoder's input."""
        raw = batch[self.key] if self.otherwise is None or self.key in batch else self.otherwise(batch)
        if self.training and self.augment is not None:
            raw = self.augment(raw, generator)
        return self.prepare(raw)


class MaskedObjective(nn.Module):
    """Encoder and predictor trained jointly to predict masked tokens.

        loss = mean over tasks of d(g(f(x seen), places), target(x)[places]) + seen tokens + sum w_i R_i(f(x seen))

    Each target block of a mask is predicted separately. With several streams (such as video and images) their losses
    are averaged by weight.

    Args:
        encoder: `(x, keep)` to the visible tokens `B K D`.
        predictor: Maps visible tokens and positions to masked tokens; with `seen_loss`, its method `both` also predicts
            the visible ones.
        streams: The inputs and their masks.
        target: Makes the targets, for all tokens of x.
        distance: Between predicted and true tokens.
        seen_loss: A further loss on the visible tokens, or None.
        regularisers: (name, weight, part) on all visible tokens as samples `G D`.
        spread: Prevents collapse of the predicted tokens, or None.
        still: Prepares single frames `G C h w` for `encode`; None for systems without images.

    Reference: Assran et al. 2023, arXiv:2301.08243; Bardes et al. 2024, arXiv:2404.08471.
    """

    progress: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        predictor: nn.Module,
        streams: Sequence[Stream],
        target: SharedTarget | FrozenTarget,
        distance: Distance | None = None,
        seen_loss: SeenLoss | None = None,
        regularisers: Sequence[tuple[str, float, Regulariser]] = (),
        spread: Spread | None = None,
        still: Prepare | None = None,
    ) -> None:
        super().__init__()
        if not streams:
            raise ValueError("a masked objective needs at least one stream of inputs")
        self.encoder = encoder
        self.predictor = predictor
        self.inputs = tuple(streams)
        self.streams = nn.ModuleList(streams)
        self.target = target
        self.distance = distance or AbsoluteError()
        self.seen_loss = seen_loss
        self.regularisers = tuple(regularisers)
        self.spread = spread
        self.parts = nn.ModuleDict({name: part for name, _, part in regularisers if isinstance(part, nn.Module)})
        self.still = still
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            ValueError: If the batch has none of the streams' entries, or inputs of another size than the masks.
        """
        present = [stream for stream in self.inputs if stream.finds(batch)]
        if not present:
            wanted = ", ".join(stream.key for stream in self.inputs)
            raise ValueError(f"the batch must hold one of {wanted}; it holds {', '.join(batch) or 'nothing'}")
        whole = sum(stream.weight for stream in present)
        weighted: dict[str, tuple[float, Tensor]] = {}
        for stream in present:
            terms = self._stream(stream, stream.take(batch, generator), generator)
            weighted |= {f"{stream.key}/{name}": (stream.weight / whole * w, term) for name, (w, term) in terms.items()}
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """The target's tokens of each frame separately: uint8 `B T C h w` to `B T N D`.

        Raises:
            ValueError: If the system takes no images.
        """
        if self.still is None:
            raise ValueError("this system takes no images: it cannot encode frames")
        sizes = check_shape(frames, "B T C h w")
        return self.published(self.still(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))

    @property
    def published(self) -> nn.Module:
        """The encoder for other systems: the target's, if it has its own; of several levels the last."""
        encoder = self.target.encoder if isinstance(self.target, FrozenTarget) else self.encoder
        return encoder.encoder if isinstance(encoder, AllLevels) else encoder

    def after_step(self, progress: float) -> None:
        """Update the target after an optimiser step; `progress` runs from 0 to 1."""
        self.progress.fill_(progress)
        self.target.update(self.encoder, progress)

    def _stream(self, stream: Stream, x: Any, generator: Generator) -> dict[str, tuple[float, Tensor]]:
        online = self.encoder(x) if isinstance(self.target, SharedTarget) else None
        targets = self.target(x, online)
        stream.check(x, targets)
        whole = sum(task.weight for task in stream.tasks)
        terms: dict[str, tuple[float, Tensor]] = {}
        near: list[Tensor] = []
        samples, answers = [], []
        for task in stream.tasks:
            masks = stream.hide(task, x, generator)
            masks = Masks(context=masks.context.to(x.device), targets=masks.targets.to(x.device))
            seen = self.encoder(x, masks.context)
            samples.append(seen.flatten(0, 1))
            seen_at, wanted_at = stream.places(x, masks.context), stream.places(x, masks.targets)
            predicted, again = self._predict(seen, seen_at, wanted_at, task.hints)
            wanted = gather_tokens(targets, masks.targets.flatten(1)).unflatten(1, masks.targets.shape[1:])
            terms[task.name] = (task.weight / whole, self.distance(predicted, wanted))
            answers.append(predicted.flatten(1, 2))
            if again is not None and self.seen_loss is not None:
                near.append(self._seen(again, targets, masks))
        if near and self.seen_loss is not None:
            raw = torch.stack(near).mean()
            terms["seen_raw"] = (0.0, raw)
            terms["seen"] = (1.0, self.seen_loss.weight(self.progress).to(raw.dtype) * raw)
        if self.spread is not None:
            terms["spread"] = (self.spread.weight, self.spread(answers))
        for name, weight, regulariser in self.regularisers:
            terms[name] = (weight, regulariser(torch.cat(samples), generator))
        return terms

    def _predict(
        self, seen: Tensor, seen_at: Tensor, wanted_at: Tensor, hints: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Predicted target blocks `B M L D`, and predicted visible tokens `B M K D` if requested."""
        blocks = wanted_at.shape[1]
        at, wanted_at = seen_at.repeat_interleave(blocks, dim=0), wanted_at.flatten(0, 1)  # (B M, K), (B M, L)
        seen = seen.repeat_interleave(blocks, dim=0)  # (B M, K, D)
        if self.seen_loss is None:
            return self.predictor(seen, at, wanted_at, **hints).unflatten(0, (-1, blocks)), None
        wanted, again = self.predictor.both(seen, at, wanted_at, **hints)  # type: ignore[operator]
        return wanted.unflatten(0, (-1, blocks)), again.unflatten(0, (-1, blocks))

    def _seen(self, again: Tensor, targets: Tensor, masks: Masks) -> Tensor:
        """The loss on visible tokens, weighted for each block by its distance to them."""
        assert self.seen_loss is not None
        wanted = gather_tokens(targets, masks.context)
        each = [
            self.seen_loss(again[:, index], wanted, Masks(context=masks.context, targets=block[:, None]))
            for index, block in enumerate(masks.targets.unbind(dim=1))
        ]
        return torch.stack(each).mean()


def each_frame(batch: Batch) -> Frames:
    """Every frame of each clip as a separate clip, `BT 1 C h w`."""
    return batch["frames"].flatten(0, 1)[:, None]


def first_frames(batch: Batch) -> Frames:
    """The first frame of each clip, `B 1 C h w`."""
    return batch["frames"][:, :1]


def gather_tokens(tokens: Tensor, at: Tensor) -> Tensor:
    """Tokens `(B, N, D)` at the indices `(B, L)`: `(B, L, D)`."""
    return tokens.gather(1, at[..., None].expand(-1, -1, tokens.shape[-1]))
