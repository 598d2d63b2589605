"""Released encoders: every official layout is read, every key accounted for, every mistake told."""

from __future__ import annotations

import json
import math
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from torch import Tensor

from jepa_mpc.encoders import ENCODERS
from jepa_mpc.encoders.adapters import hub, vjepa2
from jepa_mpc.encoders.adapters.files import Released, read_released, sort_hugging_face, sort_trainer
from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.released import vjepa2 as second
from jepa_mpc.encoders.released import vjepa2_1 as second_point_one
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.seeding import generator

ROOT = Path(__file__).resolve().parents[2]
KEYS = json.loads((ROOT / "tests/golden/data/vjepa2_keys.json").read_text())
"""Names and shapes of the full-size released files, blocks told once."""

HUB_ENTRIES = {
    "vjepa2_vit_large": "vjepa2_vitl",
    "vjepa2_vit_huge": "vjepa2_vith",
    "vjepa2_vit_giant": "vjepa2_vitg",
    "vjepa2_vit_giant_384": "vjepa2_vitg_384",
    "vjepa2_ac_vit_giant": "vjepa2_ac_vitg",
    "vjepa2_1_vit_base_384": "vjepa2_1_vitb",
    "vjepa2_1_vit_large_384": "vjepa2_1_vitl",
    "vjepa2_1_vit_giant_384": "vjepa2_1_vitg",
    "vjepa2_1_vit_gigantic_384": "vjepa2_1_vit_gigantic",
}
FORMS = {"2": (second, single_norm_spelling), "2.1": (second_point_one, encoder_spelling)}
SIZES = VideoSizes(width=48, depth=4, heads=3, mlp_dim=96)
OTHERS = {"opt": {"state": {}}, "scaler": None, "epoch": 3, "loss": np.float64(0.5), "lr": 1e-4, "batch_size": 8}


def full_size(entry: str, module: str) -> dict[str, Tensor]:
    told = KEYS[entry]["modules"][module]
    shapes = dict(told["rest"])
    for name, block in told["blocks"].items():
        shapes |= {
            f"{name}.{index}.{key}": shape for index in range(block["depth"]) for key, shape in block["each"].items()
        }
    return {told["prefix"] + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def tiny(form: str = "2", *, seed: int = 0) -> tuple[VideoTransformer, dict[str, Tensor]]:
    """An encoder, and its weights in the authors' spelling."""
    build, spelling = FORMS[form]
    made = draw_weights(build(SIZES), generator(seed)).eval()
    return made, {spelling(name): weight.detach().clone() for name, weight in made.state_dict().items()}


def hugging_face(weights: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The authors' spelling to that of Hugging Face."""
    found = {}
    for name, value in weights.items():
        name = re.sub(r"^blocks\.", "encoder.layer.", name)
        name = re.sub(r"^patch_embed\.", "encoder.embeddings.patch_embeddings.", name)
        name = re.sub(r"^norm\.", "encoder.layernorm.", name).replace(".attn.proj.", ".attention.proj.")
        if ".attn.qkv." in name:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            found |= {prefix + name.replace("attn.qkv", f"attention.{part}"): piece.clone() for part, piece in parts}
        else:
            found[prefix + name] = value
    return found


def save_folder(folder: Path, weights: dict[str, Tensor], **changes) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    config = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 4, "patch_size": 16, "tubelet_size": 2}
    (folder / "config.json").write_text(json.dumps(config | {"crop_size": 256, "layer_norm_eps": 1e-6} | changes))
    return folder


def picture() -> Tensor:
    return torch.randn(1, 2, 3, 32, 48, generator=generator(7))


def load_tiny(place: Path) -> VideoTransformer:
    return vjepa2.load(hub=place, heads=SIZES.heads)


@pytest.mark.parametrize(("entry", "model"), HUB_ENTRIES.items())
def test_full_size_file_of_the_authors_fits_key_by_key(entry, model):
    section = KEYS[entry]["section"]
    content = {section: full_size(entry, "encoder"), "predictor": full_size(entry, "predictor"), **OTHERS}
    released = sort_trainer(content, source="file", section=RELEASES[model].section)
    found, wanted = vjepa2.describe(released), RELEASES[model]
    assert (found.form, found.sizes, released.section) == (wanted.form, wanted.sizes, section)
    made = vjepa2.build(released, dtype=None)
    assert sum(weight.numel() for weight in made.parameters()) == KEYS[entry]["modules"]["encoder"]["parameters"]
    assert len(released.predictor) == len(full_size(entry, "predictor"))


@pytest.mark.parametrize("entry", [entry for entry in KEYS if entry.startswith("hf_")])
def test_full_size_file_of_hugging_face_fits_key_by_key(entry):
    tensors = full_size(entry, "encoder") | full_size(entry, "predictor")
    released = sort_hugging_face(tensors, KEYS[entry]["config"], source="file")
    (model,) = [name for name, release in RELEASES.items() if release.repository == f"facebook/{entry[3:]}"]
    found = vjepa2.describe(released)
    assert (found.form, found.sizes, found.image) == (second, RELEASES[model].sizes, RELEASES[model].image)
    made = vjepa2.build(released, dtype=None)
    assert sum(weight.numel() for weight in made.parameters()) == KEYS[entry]["modules"]["encoder"]["parameters"]
    hub_entry = next(entry for entry, name in HUB_ENTRIES.items() if name == model)
    plain = {
        name.removeprefix("module.backbone."): value.shape for name, value in full_size(hub_entry, "predictor").items()
    }
    assert {name: value.shape for name, value in released.predictor.items()} == plain


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "backbone.module."])
@pytest.mark.parametrize("section", ["ema_encoder", "target_encoder", "encoder", None])
def test_trainer_files_give_the_same_features(tmp_path, form, prefix, section):
    made, weights = tiny(form)
    table = {prefix + name: value for name, value in (weights | {"pos_embed": torch.zeros(1, 6, 48)}).items()}
    torch.save(table if section is None else {section: table, **OTHERS}, tmp_path / "file.pt")
    loaded = load_tiny(tmp_path / "file.pt")
    assert torch.equal(loaded(picture()), made(picture())) and not loaded.training


@pytest.mark.parametrize("prefix", ["", "vjepa2."])
def test_hugging_face_folders_give_the_same_features(tmp_path, prefix):
    made, weights = tiny()
    heads = {"pooler.query_tokens": torch.zeros(3), "classifier.weight": torch.zeros(2, 3)} if prefix else {}
    loaded = vjepa2.load(hub=save_folder(tmp_path / "model", hugging_face(weights, prefix) | heads))
    assert torch.equal(loaded(picture()), made(picture()))


def test_a_folder_in_several_parts_is_joined(tmp_path):
    made, weights = tiny()
    spelled = list(hugging_face(weights).items())
    folder = save_folder(tmp_path, {})
    (folder / "model.safetensors").unlink()
    parts = {f"model-0000{index + 1}-of-00002.safetensors": dict(spelled[index::2]) for index in range(2)}
    for name, part in parts.items():
        save_file(part, folder / name)
    where = {key: name for name, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert torch.equal(vjepa2.load(hub=folder)(picture()), made(picture()))


def test_the_averaged_encoder_is_taken_before_the_others_and_any_can_be_asked_for(tmp_path):
    sections = {name: tiny(seed=seed)[1] for seed, name in enumerate(("encoder", "target_encoder", "ema_encoder"))}
    torch.save(sections, tmp_path / "file.pt")
    assert read_released(tmp_path / "file.pt").section == "ema_encoder"
    asked = read_released(tmp_path / "file.pt", section="encoder")
    assert torch.equal(asked.encoder["norm.weight"], sections["encoder"]["norm.weight"])
    assert torch.equal(asked.encoder["blocks.0.attn.qkv.weight"], sections["encoder"]["blocks.0.attn.qkv.weight"])


def test_an_action_conditioned_file_gives_its_own_frozen_encoder():
    content = {"encoder": tiny(seed=0)[1], "target_encoder": tiny(seed=1)[1]}
    predictor = {"module.action_encoder.weight": torch.zeros(8, 7)}
    assert sort_trainer(content | {"predictor": predictor}, source="file").section == "encoder"
    assert sort_trainer(content, source="file").section == "target_encoder"


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_come_in_the_asked_dtype_whatever_the_file_has(tmp_path, dtype, wanted):
    _, weights = tiny()
    folder = save_folder(tmp_path / "model", {name: value.half() for name, value in hugging_face(weights).items()})
    loaded = vjepa2.load(hub=folder, dtype=dtype)
    assert {weight.dtype for weight in loaded.parameters()} == {wanted}
    with pytest.raises(UnknownName, match="float8"):
        vjepa2.load(hub=folder, dtype="float8")


def test_loaded_weights_can_be_trained_and_do_not_touch_the_file(tmp_path):
    _, weights = tiny()
    torch.save({"encoder": weights}, tmp_path / "file.pt")
    before = (tmp_path / "file.pt").read_bytes()
    loaded = load_tiny(tmp_path / "file.pt").train()
    loaded(picture()).square().sum().backward()
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    assert not torch.equal(loaded.state_dict()["blocks.0.mlp.up.weight"], weights["blocks.0.mlp.fc1.weight"])
    assert (tmp_path / "file.pt").read_bytes() == before


def test_missing_unexpected_and_misshapen_keys_are_told_in_one_sentence():
    _, weights = tiny()
    del weights["blocks.2.norm1.bias"]
    weights |= {"blocks.1.extra": torch.zeros(1), "norm.weight": torch.zeros(49)}
    released = Released(source="file.pt", section="encoder", encoder=weights)
    with pytest.raises(BadCheckpoint) as error:
        vjepa2.build(released, vjepa2.describe(released, heads=3))
    for part in (
        "file.pt",
        "1 missing: blocks.2.norm1.bias",
        "1 unexpected: blocks.1.extra",
        "norm.weight (expected (48,)",
    ):
        assert part in str(error.value)


def test_a_block_without_its_keys_is_told():
    _, weights = tiny()
    spelled = hugging_face(weights)
    del spelled["encoder.layer.1.attention.key.weight"]
    with pytest.raises(BadCheckpoint, match=r"blocks?.*1 has no key|layer\.1 has no key"):
        sort_hugging_face(spelled, {}, source="file")


def test_the_same_weight_with_and_without_a_prefix_is_refused():
    _, weights = tiny()
    with pytest.raises(BadCheckpoint, match="1 weights twice"):
        sort_trainer({"encoder": weights | {"module.norm.weight": torch.zeros(48)}}, source="file")


@pytest.mark.parametrize("form", FORMS)
def test_another_models_file_is_refused_with_what_was_expected_and_found(tmp_path, form):
    torch.save({"encoder": tiny(form)[1]}, tmp_path / "file.pt")
    wanted, found = "expected V-JEPA 2 with width 1024", f"got V-JEPA {form} with width 48, 4 blocks, 3 heads"
    with pytest.raises(BadCheckpoint, match=f"is not vjepa2_vitl: {wanted}.*{found}"):
        vjepa2.load("vjepa2_vitl", hub=tmp_path / "file.pt", heads=3)
    with pytest.raises(BadCheckpoint, match="is not vjepa2_vitl: no released encoder has a width of 48"):
        vjepa2.load("vjepa2_vitl", hub=tmp_path / "file.pt")


@pytest.mark.parametrize("entry", HUB_ENTRIES)
def test_a_released_file_under_another_released_name_is_recognised(entry):
    found = vjepa2.describe(sort_trainer({"encoder": full_size(entry, "encoder")}, source="some.pt"))
    other = "vjepa2_vith" if HUB_ENTRIES[entry] != "vjepa2_vith" else "vjepa2_vitl"
    with pytest.raises(BadCheckpoint, match=f"some.pt is not {other}: .* got V-JEPA 2.*[= ]{HUB_ENTRIES[entry]}( |$)"):
        vjepa2.check_release(other, found)


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"encoder": {"conv1.weight": torch.zeros(3, 3)}}, tmp_path / "file.pt")
    with pytest.raises(BadCheckpoint, match="is not a V-JEPA 2 encoder: patch_embed.proj.weight is missing.*conv1"):
        vjepa2.load(hub=tmp_path / "file.pt")
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 1}, tmp_path / "file.pt")
    with pytest.raises(BadCheckpoint, match="holds no encoder: expected one of ema_encoder.*got model, epoch"):
        vjepa2.load(hub=tmp_path / "file.pt")
    torch.save([1, 2], tmp_path / "file.pt")
    with pytest.raises(BadCheckpoint, match="table of tensors, got list"):
        vjepa2.load(hub=tmp_path / "file.pt")


def test_an_unknown_number_of_heads_is_not_guessed():
    _, weights = tiny()
    with pytest.raises(BadCheckpoint, match="unknown number of heads for a width of 48; pass heads="):
        vjepa2.describe(Released(source="file", section="encoder", encoder=weights))


def test_a_configuration_that_contradicts_the_weights_is_refused(tmp_path):
    folder = save_folder(tmp_path / "model", hugging_face(tiny()[1]), num_hidden_layers=24)
    with pytest.raises(BadCheckpoint, match=r"num_hidden_layers 24 \(weights: 4\)"):
        vjepa2.load(hub=folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, suffix, share):
    file = tmp_path / f"file{suffix}"
    if suffix == ".pt":
        torch.save({"encoder": tiny()[1]}, file)
    else:
        save_file(tiny()[1], file)
    file.write_bytes(file.read_bytes()[: math.floor(share * file.stat().st_size)])
    with pytest.raises(BadCheckpoint, match="cut short"):
        read_released(file)


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"encoder": Trap()}))
    torch.save({"encoder": Trap()}, tmp_path / "new.pt")
    for name in ("old.pt", "new.pt"):
        with pytest.raises(BadCheckpoint, match="cannot be read as weights"):
            read_released(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


def test_a_folder_without_weights_or_with_several_is_told(tmp_path):
    with pytest.raises(BadCheckpoint, match="found none"):
        read_released(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(BadCheckpoint, match=r"found a\.pt, b\.pt: pass the file itself"):
        read_released(tmp_path)
    with pytest.raises(BadCheckpoint, match="there is no file or folder"):
        read_released(tmp_path / "missing.pt")


def test_what_exists_here_is_taken_before_the_network(tmp_path, monkeypatch):
    (tmp_path / "owner/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert hub.resolve("owner/model") == Path("owner/model")


def test_a_repository_is_fetched_without_what_is_not_needed(tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(name, *, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(save_folder(tmp_path / "snapshot", hugging_face(tiny()[1])))

    fake = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    made = vjepa2.load(hub="someone/small-vjepa2")
    assert torch.equal(made(picture()), tiny()[0](picture()))
    assert (
        asked["name"] == "someone/small-vjepa2" and "config.json" in asked["patterns"] and "*" not in asked["patterns"]
    )


def test_without_a_network_or_the_package_the_error_says_what_to_do(monkeypatch):
    def snapshot_download(name, *, allow_patterns):
        raise FileNotFoundError("no snapshot here and no connection")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(
        BadCheckpoint, match=r"hf download facebook/vjepa2-vitl-fpc64-256 --local-dir FOLDER.*hub=FOLDER"
    ):
        vjepa2.load("vjepa2_vitl")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackage, match="pip install huggingface_hub"):
        vjepa2.load("vjepa2_vitl")


@pytest.mark.parametrize("name", ["nowhere/file.pt", "/no/such/folder", "a/b/c", "words"])
def test_a_place_that_is_neither_here_nor_a_repository_is_told(name):
    with pytest.raises(BadCheckpoint, match="no file or folder"):
        vjepa2.load("vjepa2_vitl", hub=name)


def test_a_model_that_no_repository_has_names_its_file():
    with pytest.raises(BadCheckpoint, match=r"download vjepa2_1_vitb_dist_vitG_384\.pt .*hub=FILE"):
        vjepa2.load("vjepa2_1_vitb")
    with pytest.raises(UnknownName, match="known: .*vjepa2_vitl"):
        vjepa2.load("vjepa3")


@pytest.mark.parametrize("name", RELEASES)
def test_every_released_encoder_can_be_built_and_configured(name):
    with torch.device("meta"):
        assert ENCODERS[name]().width == RELEASES[name].sizes.width
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        plain = compose(overrides=[f"+encoder={name}"])
        moved = compose(overrides=[f"+encoder={name}", "hub=/my/folder"])
    assert plain.encoder.model == name and plain.hub == RELEASES[name].repository
    assert plain.encoder._target_ == "vjepa2_encoder"
    assert moved.encoder.hub == "/my/folder"


def test_configurations_and_releases_agree_one_to_one():
    assert {
        file.stem for file in (ROOT / "configs/encoder").glob("*.yaml") if "vjepa2_encoder" in file.read_text()
    } == set(RELEASES)
