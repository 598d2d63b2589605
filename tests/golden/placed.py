"""Kinds `ijepa` and `vjepa`: encoders and predictors with tables of places, their losses, gradients and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.adapters.files import sort_hugging_face
from jepa_mpc.encoders.adapters.names import placed_spelling, without_prefixes
from jepa_mpc.encoders.adapters.placed import build, describe, fill_placed
from jepa_mpc.encoders.adapters.probes import probe_of
from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.placed import TABLES, Grid, PlacedTransformer, bicubic, trilinear
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.types import Loss, Masks
from jepa_mpc.world_model.adapters.vjepa2 import fill_predictor
from jepa_mpc.world_model.parts.distances import AbsoluteError, Distance, PowerError, SmoothAbsoluteError, SquaredError
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective, MaskTask, Spread, Stream, gather_tokens
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes, TablePlaces
from jepa_mpc.world_model.parts.targets import EMATarget, constant_momentum
from tests.golden.cases import GRADIENT, Case
from tests.golden.vjepa2_masked import Given

Spelled = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

PICTURE_LOSSES: Mapping[str, Distance] = {
    "smooth_l1": SmoothAbsoluteError(),
    "mse": SquaredError(),
    "l1": AbsoluteError(),
}


def check_pictures(case: Case) -> None:
    meta = case.meta
    height, width = _pair(meta["img_size"])
    grid = (1, height // meta["patch_size"], width // meta["patch_size"])
    model = PlacedModel(case, grid, "column_first")
    images = case.tensors["in.images"]
    model.check_networks(images)
    tasks = model.check_blocks(images, lists=("masks_enc", "masks_pred"), whole=LatentNorm()(model.target(images)))
    for name, distance in PICTURE_LOSSES.items():
        case.check(f"out.loss_{name}", model.loss(images, tasks, distance=distance).total)
    loss = model.loss(images, tasks, distance=PICTURE_LOSSES["smooth_l1"])
    model.check_gradients(loss)
    model.check_follows(meta.get("ema_example", 0.996))
    _check_hugging_face(case)


def check_clips(case: Case) -> None:
    meta = case.meta
    height, width = _pair(meta["img_size"])
    patch = meta["patch_size"]
    grid = (meta["num_frames"] // meta["tubelet_size"], height // patch, width // patch)
    model = PlacedModel(case, grid, "even_thirds" if meta["uniform_power"] else "time_half")
    clips = case.tensors["in.clips"].transpose(1, 2)
    model.check_networks(clips)
    if "in.clips_other_size" in case.tensors:
        case.check("out.enc_other_size", model.encoder(case.tensors["in.clips_other_size"].transpose(1, 2)))
    normed = LatentNorm()(model.target(clips))
    tasks = []
    for index, (keep, wanted) in enumerate(zip(model.lists("masks_enc"), model.lists("masks_pred"), strict=True)):
        seen = model.encoder(clips, keep)
        case.check(f"out.enc_context.{index}", seen)
        case.check(f"out.pred.{index}", model.predictor(seen, keep, wanted, mask_token=index))
        case.check(f"out.target_ln.{index}", gather_tokens(normed, wanted))
        tasks.append(MaskTask(name=str(index), sampler=Given(keep, wanted), hints={"mask_token": index}))
    spread = Spread(weight=meta["reg_coeff"])
    loss = model.loss(clips, tasks, distance=PowerError(meta["loss_exp"]), spread=spread)
    case.check("out.loss_jepa", torch.stack([loss.terms[f"frames/{task.name}"] for task in tasks]).mean())
    case.check("out.loss_reg", loss.terms["frames/spread"])
    case.check("out.loss_total", loss.total)
    model.check_gradients(loss)
    if "out.probe_logits" in case.tensors:
        probe = probe_of(case.under("param.probe."), heads=meta["num_heads"])
        case.check("out.probe_logits", probe(model.encoder(clips)))


class Fixed:
    """Masks that are known."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks

    def __call__(self, batch: int, generator: Generator) -> Masks:
        return self.masks


class PlacedModel:
    """Encoder, target's encoder and predictor of a case.

    Args:
        case: The case.
        grid: Times, rows and columns of its tokens.
        table: Name of its table of places.
        spelled: Brings weights to the spelling of I-JEPA.
        finish: What the target's tokens pass.
    """

    def __init__(
        self, case: Case, grid: Grid, table: str, *, spelled: Spelled = dict, finish: nn.Module | None = None
    ) -> None:
        self.case, self.grid, self.table = case, grid, table
        self.spelled, self.finish = spelled, finish or LatentNorm()
        self.encoder, self.target = (self._encoder(f"param.{name}.") for name in ("encoder", "target_encoder"))
        self.predictor = self._predictor()

    def _encoder(self, prefix: str) -> PlacedTransformer:
        meta = self.case.meta
        width = meta["embed_dim"]
        sizes = VideoSizes(
            width=width,
            depth=meta["depth"],
            heads=meta["num_heads"],
            mlp_dim=int(width * meta.get("mlp_ratio", 4)),
            patch=_pair(meta["patch_size"])[0],
            patch_width=_pair(meta["patch_size"])[1],
            tubelet=meta.get("tubelet_size", 1),
            channels=meta.get("in_chans", 3),
            eps=meta["layer_norm_eps"],
            qkv_bias=meta.get("qkv_bias", True),
        )
        resize = bicubic if self.grid[0] == 1 and sizes.tubelet == 1 else trilinear
        encoder = PlacedTransformer(sizes, grid=self.grid, table=TABLES[self.table], resize=resize)
        weights = without_prefixes(self.spelled(self.case.under(prefix)), "the case")
        fill_placed(encoder, weights, table=self.table, title="the case")
        return encoder.eval()

    def _predictor(self) -> MaskedPredictor:
        meta = self.case.meta
        width = meta["pred_dim"]
        sizes = MaskedSizes(
            inputs=meta["embed_dim"],
            outputs=meta["embed_dim"],
            width=width,
            depth=meta["pred_depth"],
            heads=meta.get("pred_heads", meta["num_heads"]),
            mlp_dim=int(width * meta.get("mlp_ratio", 4)),
            mask_tokens=meta.get("num_mask_tokens", 1),
            eps=meta["layer_norm_eps"],
        )
        predictor = MaskedPredictor(sizes, TablePlaces(TABLES[self.table](self.grid, width)))
        weights = self.spelled(self.case.under("param.predictor."))
        fill_predictor(predictor, without_prefixes(weights, "the case"))
        return predictor.eval()

    def lists(self, name: str) -> list[Tensor]:
        found = self.case.under(f"in.{name}.")
        return [found[key] for key in sorted(found, key=int)]

    def check_networks(self, x: Tensor, *, target: str = "out.target_full_raw") -> None:
        places = self.predictor.places
        assert isinstance(places, TablePlaces)
        self.case.check("out.enc_pos_embed", self.encoder.positions)
        self.case.check("out.pred_pos_embed", places.table)
        self.case.check("out.enc_full", self.encoder(x))
        self.case.check(target, self.target(x))

    def check_blocks(
        self, x: Tensor, *, lists: tuple[str, str], whole: Tensor, target: str = "out.target_ln"
    ) -> list[MaskTask]:
        """Compare encoded sets, predictions and targets `whole`; gives the ways of hiding of the case."""
        contexts, blocks = (self.lists(name) for name in lists)
        seen = [self.encoder(x, keep) for keep in contexts]
        self.case.check("out.enc_context", torch.cat(seen))
        predicted = [
            self.predictor(tokens, keep, wanted)
            for wanted in blocks
            for tokens, keep in zip(seen, contexts, strict=True)
        ]  # block-major, then the seen set, then the sample
        self.case.check("out.pred", torch.cat(predicted))
        self.case.check(target, torch.cat([gather_tokens(whole, at) for at in blocks for _ in contexts]))
        hidden = torch.stack(blocks, dim=1)
        return [
            MaskTask(name=f"seen_{index}", sampler=Fixed(Masks(context=keep, targets=hidden)))
            for index, keep in enumerate(contexts)
        ]

    def loss(self, x: Tensor, tasks: list[MaskTask], **parts: Any) -> Loss:
        for network in (self.encoder, self.predictor):
            network.zero_grad()
        target = EMATarget(self.target, finish=self.finish)
        objective = MaskedObjective(
            encoder=self.encoder, predictor=self.predictor, streams=[Stream("frames", tasks)], target=target, **parts
        )
        return objective({"frames": x}, Generator())

    def check_gradients(self, loss: Loss) -> None:
        loss.total.backward()
        for name, network in (("enc", self.encoder), ("pred", self.predictor)):
            self.case.check(f"out.grad_norm.{name}", _norm(network), GRADIENT)
        given = self.predictor.mask_tokens.grad
        assert given is not None
        for name in self.case.under("out.grad.mask_token"):
            self.case.check(f"out.grad.mask_token{name}", given[int(name.removeprefix(".") or 0)], GRADIENT)
        own = {placed_spelling(name): weight.grad for name, weight in self.encoder.named_parameters()}
        for name in self.case.under("out.grad.enc."):
            self.case.check(f"out.grad.enc.{name}", own[name], GRADIENT)

    def check_follows(self, momentum: float) -> None:
        target = EMATarget(self.target, momentum=constant_momentum(momentum))
        target.update(self.encoder, 0.0)
        moved = {placed_spelling(name): value for name, value in target.encoder.state_dict().items()}
        for name in self.case.under("out.ema."):
            self.case.check(f"out.ema.{name}", moved[name])


def _check_hugging_face(case: Case) -> None:
    """Outputs of transformers with the encoder's weights; its file has these keys."""
    if "out.hf_last_hidden_state" not in case.tensors:
        return
    released = sort_hugging_face(
        _hugging_face(case), {"layer_norm_eps": case.meta["layer_norm_eps"]}, source="the case"
    )
    encoder = build(released, describe(released, heads=case.meta["num_heads"]), title="the case")
    case.check("out.hf_last_hidden_state", encoder(case.tensors["in.images"]))
    if "out.hf_interp_last_hidden_state" in case.tensors:
        case.check("out.hf_interp_last_hidden_state", encoder(case.tensors["in.images_other_res"]))


def _hugging_face(case: Case) -> dict[str, Tensor]:
    """The encoder's weights under the keys that the case lists."""
    own = case.under("param.encoder.") | {"pos_embed": case.tensors["out.enc_pos_embed"]}
    names = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm": "norm",
    }
    found = {}
    for key in case.meta["hf_saved_keys"]:
        place = key.replace("encoder.layer.", "blocks.")
        part = next((index for index, word in enumerate(("query", "key", "value")) if f".{word}." in key), None)
        if key == "embeddings.position_embeddings":
            found[key] = own["pos_embed"]
        elif part is not None:
            block, kind = place.split(".attention.")[0], key.rpartition(".")[2]
            found[key] = own[f"{block}.attn.qkv.{kind}"].chunk(3)[part]
        else:
            for theirs, ours in names.items():
                if theirs in place:
                    place = place.replace(theirs, ours)
                    break
            found[key] = own[place]
    return found


def _norm(network: nn.Module) -> Tensor:
    grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt()


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, list) else (size, size)
