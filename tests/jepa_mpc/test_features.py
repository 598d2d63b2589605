"""Features of films, pictures, clouds and sounds in a file: resumable, and the numbers of one call each."""

from __future__ import annotations

import json

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.io import wavfile

from jepa_mpc.cli import COMMANDS, spelled_out
from jepa_mpc.encoders.adapters.names import single_norm_spelling
from jepa_mpc.encoders.released import vjepa2
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.experiments.commands.features import chosen, features
from jepa_mpc.face.commands import composed
from jepa_mpc.face.encoders import EncoderChoice
from jepa_mpc.face.feature_files import FeatureSettings, write_features
from jepa_mpc.face.features import encode_cloud, encode_image, encode_sound, encode_video
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.recipes import audio_jepa, point_jepa, vjepa
from tests import tiny

DRAWS = np.random.default_rng(0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny V-JEPA 2 in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("encoder")
    network = vjepa2(VideoSizes(width=24, depth=1, heads=2, mlp_dim=48, patch=16, tubelet=2))
    save_file({single_norm_spelling(n): x for n, x in network.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    return EncoderChoice(name=folder, image_size=32)


def film(path, frames=10):
    pytest.importorskip("av")
    path.parent.mkdir(exist_ok=True)
    imageio.mimwrite(path, list(DRAWS.integers(0, 255, (frames, 48, 64, 3), dtype=np.uint8)), fps=8, macro_block_size=1)
    return path


def ours(folder, recipe, module):
    """An untrained system of ours that encodes clouds or sounds."""
    system = {"preset": "tiny"}
    made = module.build(**system, generator=generator(0))
    facts = tiny.interface(cameras=("none",), actions=())
    save_world_model(folder, made, system={"_target_": recipe, **system}, interface=facts)
    return folder


def test_a_film_becomes_one_row_per_clip(tmp_path, encoder):
    clips = film(tmp_path / "film.mp4")
    told = []
    written = write_features(
        clips,
        encoder,
        tmp_path / "f.safetensors",
        settings=FeatureSettings(frames=4, batch=2),
        progress=lambda *n: told.append(n),
    )
    found = load_file(written)["features"]
    torch.testing.assert_close(found, encode_video(clips, encoder.name, frames=4, image_size=32))
    assert found.shape == (3, 2 * 2 * 2, 24) and told == [(2, 3), (3, 3)]
    assert not list(tmp_path.glob("*.part"))


def test_a_training_on_clips_encodes_clips(tmp_path):
    """A V-JEPA of ours: tokens of a tubelet know both of its frames; a single frame is repeated."""
    system = {"preset": "tiny"}
    made = vjepa.build(**system, generator=generator(0))
    facts = tiny.interface(cameras=("left",), actions=(), image_size=28)
    folder = tmp_path / "vjepa"
    save_world_model(folder, made, system={"_target_": "vjepa", **system}, interface=facts)
    frames = DRAWS.integers(0, 255, (4, 28, 28, 3), dtype=np.uint8)
    other = np.concatenate([frames[:1], DRAWS.integers(0, 255, (3, 28, 28, 3), dtype=np.uint8)])
    one, two = (encode_video(each, folder, frames=4) for each in (frames, other))
    assert one.shape == (1, 2 * 4 * 4, 32) and not torch.equal(one[0, :16], two[0, :16])
    assert encode_image(frames[0], folder).shape == (16, 32)


@pytest.mark.parametrize(
    "shape, dtype", [((5, 5), np.uint8), ((5, 5, 4), np.uint8), ((0, 5, 3), np.uint8), ((5, 5, 3), float)]
)
def test_an_array_that_is_no_image_is_told(encoder, shape, dtype):
    with pytest.raises(BadObservation, match=r"expected RGB images \(h, w, 3\) of uint8, got "):
        encode_image(np.zeros(shape, dtype), encoder.name, image_size=32)
    with pytest.raises(BadObservation, match=r"expected RGB images|has no frames"):
        encode_video(np.zeros((2, *shape), dtype), encoder.name, frames=2, image_size=32)


def test_an_image_that_is_not_there_is_told(encoder, tmp_path):
    with pytest.raises(BadObservation, match="there is no image .*nowhere.png"):
        encode_image(tmp_path / "nowhere.png", encoder.name, image_size=32)


def test_a_stopped_command_goes_on_where_it_was(tmp_path, encoder):
    clips, to, how = film(tmp_path / "film.mp4"), tmp_path / "f.safetensors", FeatureSettings(frames=4)

    def stop(done, rows):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(clips, encoder, to, settings=how, progress=stop)
    assert not to.exists()
    with pytest.raises(ValueError, match=r"started with other settings \(frames\)"):
        write_features(clips, encoder, to, settings=FeatureSettings(frames=5))
    told = []
    write_features(clips, encoder, to, settings=how, progress=lambda done, rows: told.append(done))
    assert told == [3]
    torch.testing.assert_close(load_file(to)["features"], encode_video(clips, encoder.name, frames=4, image_size=32))
    with pytest.raises(FileExistsError, match="choose a new path"):
        write_features(clips, encoder, to, settings=how)


def test_pictures_of_a_folder_are_encoded_side_by_side(tmp_path, encoder):
    (tmp_path / "album" / "more").mkdir(parents=True)
    for name, size in {"a.png": (40, 50), "b.png": (64, 32), "more/c.png": (33, 33)}.items():
        Image.fromarray(DRAWS.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "album" / name)
    how = FeatureSettings(batch=2, dtype="float16")
    found = load_file(write_features(tmp_path / "album", encoder, tmp_path / "f.safetensors", settings=how))
    assert sorted(found) == ["a.png", "b.png", "more/c.png"]
    for name, tokens in found.items():
        alone = encode_image(tmp_path / "album" / name, encoder.name, image_size=32)
        assert tokens.dtype == torch.float16
        torch.testing.assert_close(tokens.float(), alone, rtol=1e-2, atol=1e-2)


def test_clouds_and_sounds_have_encoders_too(tmp_path):
    clouds, sounds = (
        ours(tmp_path / "clouds", "point_jepa", point_jepa),
        ours(tmp_path / "sounds", "audio_jepa", audio_jepa),
    )
    np.save(tmp_path / "scan.npy", DRAWS.standard_normal((300, 3)).astype(np.float32))
    wavfile.write(tmp_path / "tap.wav", 2000, DRAWS.standard_normal(500).astype(np.float32))
    cloud, sound = encode_cloud(tmp_path / "scan.npy", clouds), encode_sound(tmp_path / "tap.wav", sounds)
    for name, choice, wanted in (("scan.npy", clouds, cloud), ("tap.wav", sounds, sound)):
        to = write_features(tmp_path / name, EncoderChoice(name=choice), tmp_path / f"{name}.safetensors")
        torch.testing.assert_close(load_file(to)["features"], wanted)
    assert cloud.dim() == 2 and sound.dim() == 3
    with pytest.raises(BadCheckpoint, match="does not encode sounds"):
        encode_sound(tmp_path / "tap.wav", clouds)


def test_what_cannot_be_encoded_is_refused_in_words(tmp_path, encoder):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.png").touch()
    (tmp_path / "mixed" / "b.wav").touch()
    for source, words in ((tmp_path / "mixed", "files of one kind"), (tmp_path / "no", "no file or folder")):
        with pytest.raises(BadObservation, match=words):
            write_features(source, encoder, tmp_path / "f.safetensors")
    with pytest.raises(BadCheckpoint, match="cannot encode point clouds: give the folder"):
        encode_cloud(tmp_path / "x.npy", "vjepa2_vitl")
    with pytest.raises(BadCheckpoint, match="takes 2 cameras"):
        encode_image(np.zeros((8, 8, 3), np.uint8), "reach_wide")


def test_the_command_takes_the_source_as_its_first_word(tmp_path, encoder):
    clips, to = film(tmp_path / "film.mp4"), tmp_path / "f.safetensors"
    words = spelled_out(COMMANDS["features"], ["it's a film.mp4", "frames=3"])
    assert words == ["source='it\\'s a film.mp4'", "frames=3"]
    assert spelled_out(COMMANDS["reach"], ["x"]) == ["x"]
    options = {"source": clips, "checkpoint": encoder.name, "to": to, "image_size": 32, "frames": 10}
    assert load_file(features(composed("features", options)))["features"].shape == (1, 5 * 4, 24)


def test_released_names_are_options_of_the_command():
    cfg = composed("features", {"source": "x.mp4", "to": "y", "encoder": "vjepa2_vitl", "hub": "weights/vitl.pt"})
    assert (chosen(cfg).name, chosen(cfg).hub) == ("vjepa2_vitl", "weights/vitl.pt")
    sound = composed("features", {"source": "x.wav", "to": "y", "encoder": "audio_jepa", "hub": "JEPA.ckpt"})
    assert chosen(sound).name == "audio_jepa"
    with pytest.raises(ValueError, match="name one encoder"):
        chosen(composed("features", {"source": "x.mp4", "to": "y"}))
