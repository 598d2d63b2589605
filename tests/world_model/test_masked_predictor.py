"""Masked predictors: what they depend on, what they refuse, and that released files fill them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jepa_mpc.encoders.adapters.files import sort_hugging_face, sort_trainer
from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.adapters.vjepa2 import describe
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import vjepa2, vjepa2_1
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.vjepa2 import fill_predictor, load_predictor, predictor_spelling, sizes_of
from jepa_mpc.world_model.parts.predictors.masked import DenseMaskedPredictor, MaskedSizes, RotaryMaskedPredictor
from jepa_mpc.world_model.recipes import vjepa2 as pretraining
from jepa_mpc.world_model.recipes import vjepa2_1 as dense_pretraining

SIZES = MaskedSizes(inputs=12, outputs=12, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=3)
JOINED = replace(SIZES, inputs=4 * 24, outputs=4 * 24, hidden=24)
ENCODER = VideoSizes(width=24, depth=4, heads=2, mlp_dim=48)
GRID = (3, 4)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "noise"))


def make(kind=RotaryMaskedPredictor, sizes=SIZES, **options):
    predictor = kind(sizes, grid=GRID, **options)
    with torch.no_grad():
        for index, weight in enumerate(predictor.parameters()):
            weight.copy_(0.3 * noise(*weight.shape, seed=index))
    return predictor.eval()


def question(inputs=12, batch=2):
    order = torch.rand(batch, 24, generator=generator(0)).argsort(dim=1)
    return noise(batch, 7, inputs), order[:, :7], order[:, 7:13]


@pytest.mark.parametrize("pairing", ["tiled", "interleaved"])
def test_answers_follow_the_order_of_the_questions(pairing):
    predictor, (seen, at, wanted) = make(pairing=pairing), question()
    shuffled, mixed = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([6, 2, 0, 1, 5, 4, 3])
    answer = predictor(seen, at, wanted)
    torch.testing.assert_close(
        predictor(seen[:, mixed], at[:, mixed], wanted[:, shuffled]), answer[:, shuffled], atol=1e-5, rtol=1e-5
    )


def test_the_place_and_the_mask_token_matter():
    predictor, (seen, at, wanted) = make(), question()
    answer = predictor(seen, at, wanted)
    assert not torch.allclose(predictor(seen, at, wanted.roll(1, 1)), answer, atol=1e-3)
    assert not torch.allclose(predictor(seen, at, wanted, mask_token=1), answer, atol=1e-3)
    assert torch.equal(predictor(seen, at, wanted, mask_token=3), answer)  # counted around


def test_a_stretched_grid_gives_other_places():
    (seen, at, wanted) = question()
    assert not torch.allclose(make(span=16)(seen, at, wanted), make(span=None)(seen, at, wanted), atol=1e-3)


def test_a_grid_of_one_row_stretches_to_its_origin():
    places = DenseMaskedPredictor(JOINED, grid=(1, 4), span=16).places
    assert bool(places(torch.arange(4)[None])[0].isfinite().all())


def test_half_precision_stays_near():
    predictor, (seen, at, wanted) = make(), question()
    answer = predictor(seen, at, wanted)
    half = predictor.to(torch.bfloat16)(seen.bfloat16(), at, wanted)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), answer, atol=0.3, rtol=0.1)


def test_seen_tokens_and_modalities_have_heads_and_tags_of_their_own():
    predictor, (seen, at, wanted) = make(DenseMaskedPredictor, JOINED), question(96)
    hidden, shown = predictor.both(seen, at, wanted)
    assert hidden.shape == (2, 6, 96) and shown.shape == (2, 7, 96)
    assert torch.equal(predictor(seen, at, wanted), hidden)
    assert not torch.allclose(predictor(seen, at, wanted, modality="image"), hidden, atol=1e-3)


def test_wrong_questions_are_refused():
    predictor, (seen, at, wanted) = make(), question()
    with pytest.raises(ValueError, match="D=12"):
        predictor(seen[..., :5], at, wanted)
    with pytest.raises(ValueError, match="K=7"):
        predictor(seen, at[:, :3], wanted)
    with pytest.raises(ValueError, match="unknown modality 'sound'; known: video, image"):
        make(DenseMaskedPredictor, JOINED)(*question(96), modality="sound")
    with pytest.raises(ValueError, match="rows, columns"):
        RotaryMaskedPredictor(SIZES, grid=(0, 4))


def test_fresh_weights_thin_out_with_depth_and_mask_tokens_are_zero():
    predictor = draw_weights(
        RotaryMaskedPredictor(replace(SIZES, width=96, mlp_dim=96, depth=8), grid=GRID), generator(0)
    )
    spreads = [float(block.mlp.down.weight.detach().std()) for block in predictor.blocks]
    for index, spread in enumerate(spreads):
        assert spread == pytest.approx(0.02 / (2 * (index + 1)) ** 0.5, rel=0.1)  # 9,216 draws: 1 % is one sigma
    assert not bool(predictor.mask_tokens.any())


def trainer_file(kind, predictor):
    """A trainer's dictionary with prefixes, as released."""
    form, spelling = (vjepa2_1, encoder_spelling) if kind is DenseMaskedPredictor else (vjepa2, single_norm_spelling)
    encoder = form(ENCODER)
    parts = {
        "encoder": {spelling(name): value for name, value in encoder.state_dict().items()},
        "predictor": predictor_spelling(predictor.state_dict()),
    }
    return {part: {f"module.backbone.{key}": value for key, value in names.items()} for part, names in parts.items()}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(RotaryMaskedPredictor, replace(SIZES, inputs=24, outputs=24)), (DenseMaskedPredictor, JOINED)],
)
def test_a_released_file_gives_the_predictor_beside_its_encoder(kind, sizes):
    predictor = make(kind, sizes)
    released = sort_trainer(trainer_file(kind, predictor), source="file.pt")
    assert sizes_of(released.predictor, heads=2) == sizes
    with pytest.raises(BadCheckpoint, match="heads"):
        load_predictor(released)  # a width of 24 belongs to no released encoder, so its heads are unknown
    released = replace(released, config={"num_attention_heads": 2})
    loaded = load_predictor(released, image=48, heads=2)
    assert type(loaded) is kind
    assert all(torch.equal(value, predictor.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_files_that_do_not_fit_are_refused_with_every_name():
    weights = predictor_spelling(make().state_dict())
    with pytest.raises(BadCheckpoint, match=r"1 missing: predictor_norm.bias; 1 unexpected: soul"):
        fill_predictor(
            make(), {k: v for k, v in weights.items() if k != "predictor_norm.bias"} | {"soul": torch.ones(1)}
        )
    with pytest.raises(BadCheckpoint, match="of another shape: mask_tokens"):
        fill_predictor(make(), {k: v for k, v in weights.items() if k != "mask_tokens.2"})
    with pytest.raises(BadCheckpoint, match="predictor_embed.weight is missing"):
        sizes_of({})
    released = sort_trainer({"encoder": trainer_file(RotaryMaskedPredictor, make())["encoder"]}, source="file.pt")
    with pytest.raises(BadCheckpoint, match="no predictor"):
        load_predictor(released)


def test_a_table_of_positions_in_the_file_is_passed_over():
    weights = predictor_spelling(make().state_dict()) | {"predictor_pos_embed": torch.zeros(1, 24, 24)}
    fill_predictor(make(), weights)


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="transformers is not installed")
@pytest.mark.parametrize(("width", "heads", "depth"), [(24, 2, 2), (48, 3, 1)])
def test_predictions_equal_those_of_transformers(width, heads, depth):
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        hidden_size=24, num_attention_heads=2, num_hidden_layers=1, mlp_ratio=2.0, crop_size=64, frames_per_clip=4,
        pred_hidden_size=width, pred_num_attention_heads=heads, pred_num_hidden_layers=depth, pred_num_mask_tokens=3,
    )  # fmt: skip
    theirs = VJEPA2Model(config).eval()
    with torch.no_grad():
        for index, weight in enumerate(theirs.parameters()):
            weight.copy_(0.2 * noise(*weight.shape, seed=index))
    released = sort_hugging_face(theirs.state_dict(), config.to_dict(), source="theirs")
    ours = load_predictor(released, image=64, heads=heads)
    order = torch.rand(2, 32, generator=generator(0)).argsort(dim=1)
    seen_at, wanted = order[:, :10].sort(dim=1).values, order[:, 10:].sort(dim=1).values
    everything = noise(2, 32, 24)
    with torch.no_grad():
        told = theirs.predictor(everything, [seen_at], [wanted]).last_hidden_state
        seen = everything.gather(1, seen_at[..., None].expand(-1, -1, 24))
        torch.testing.assert_close(ours(seen, seen_at, wanted, mask_token=1), told, atol=1e-5, rtol=1e-5)


KEYS = json.loads((Path(__file__).parents[1] / "golden" / "data" / "vjepa2_keys.json").read_text())
TRAINED = {
    "vjepa2_vit_large": pretraining.PRESETS["large"],
    "vjepa2_vit_huge": pretraining.PRESETS["huge"],
    "vjepa2_vit_giant": pretraining.PRESETS["giant"],
    "vjepa2_vit_giant_384": pretraining.PRESETS["giant_384"],
    "vjepa2_1_vit_giant_384": dense_pretraining.PRESETS["giant"],
    "vjepa2_1_vit_gigantic_384": dense_pretraining.PRESETS["gigantic"],
}
"""Released file -> the sizes that we train it with."""


def full_size(entry, module):
    """Weights of a released file, names and shapes alone."""
    told = KEYS[entry]["modules"][module]
    shapes = dict(told["rest"])
    for name, block in told["blocks"].items():
        shapes |= {f"{name}.{i}.{key}": shape for i in range(block["depth"]) for key, shape in block["each"].items()}
    return {told["prefix"] + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


PREDICTORS = [entry for entry in KEYS if "predictor" in KEYS[entry]["modules"] and "_ac_" not in entry]


@pytest.mark.parametrize("entry", [entry for entry in PREDICTORS if not entry.startswith("hf_")])
def test_predictors_of_full_size_fit_key_by_key(entry):
    parts = {part: full_size(entry, part) for part in ("encoder", "predictor")}
    predictor = load_predictor(sort_trainer(parts, source=entry))
    assert sum(weight.numel() for weight in predictor.parameters()) == KEYS[entry]["modules"]["predictor"]["parameters"]


@pytest.mark.parametrize(("entry", "sizes"), TRAINED.items())
def test_presets_have_the_sizes_of_the_released_files(entry, sizes):
    released = sort_trainer({part: full_size(entry, part) for part in ("encoder", "predictor")}, source=entry)
    assert sizes_of(released.predictor) == sizes.predictor
    assert describe(released).sizes == sizes.encoder
