"""Masked pretraining through train.py, and the probe of what came out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.released import RELEASES, Release, vjepa2
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.experiments.commands.probe import MISTAKES, draw, probe, samples, show, summary
from jepa_mpc.face.evaluation.feature_probes import READERS, AttentiveReader, Samples, attentive, judge, linear
from jepa_mpc.face.evaluation.feature_sources import PLAIN, of_checkpoint, pixels, released
from jepa_mpc.face.training.keeper import Keeper
from jepa_mpc.face.training.pretrained import published_encoder
from jepa_mpc.face.training.training_run import train
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.episode import OBJECT
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from tests.encoders import test_released
from tests.trajectories.test_clips import write_clips

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ["system.preset=tiny", "++system.image=28", "fit=pretraining", "cameras=[left]", "window=4"]
TINY = [*SYSTEM, "max_stride=1", "batch=4", "fit.steps=4", "fit.log_every=2", "fit.evaluate_every=2", "probe=16"]


def configured(name, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(name, list(overrides))


def test_the_attentive_probe_is_attention_of_one_query_without_its_keys_and_values():
    reader, tokens = AttentiveReader(9, 12, outputs=2), torch.randn(4, 9, 12, generator=generator(0))
    draw_weights(reader, generator(1))
    embedded = reader.embed(tokens) + reader.marks
    keys, values = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in reader.to_kv(embedded).chunk(2, dim=-1))
    query = reader.query.expand(4, -1, -1, -1)
    wanted = reader.mix(torch.nn.functional.scaled_dot_product_attention(query, keys, values).flatten(1))
    torch.testing.assert_close(reader(tokens), wanted, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=6, image_size=28)


SMALL = ["vjepa2_small", "vjepa2_1_small", "ijepa_small", "vjepa_small", "hjepa_pyramid_small"]
TERMS = {"ijepa_small": {"images/blocks"}, "hjepa_pyramid_small": {"images/level_0", "images/level_1"}}


@pytest.fixture(scope="module", params=SMALL)
def run(request, log, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    train(configured("train", f"system={request.param}", *TINY, "validation=0.34", f"data={log}", f"out={out}"))
    return out


def test_a_pretraining_watches_for_collapse(run):
    terms = TERMS.get(run.name, {"frames/short", "frames/long"})
    numbers = {key for line in (run / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert terms | {"held/loss", "health/std_ratio", "health/effective_rank"} <= numbers


@pytest.mark.parametrize("name", ["ijepa_small", "vjepa_small", "hjepa_pyramid_small"])
def test_a_pretraining_that_was_stopped_ends_in_the_same_bits(name, log, tmp_path):
    shared = [f"system={name}", *TINY, "validation=0.34", f"data={log}", "fit.save_every=1"]
    whole = train(configured("train", *shared, f"out={tmp_path / 'whole'}"))
    saved = Keeper.save

    def stop_after_two(keeper, state):
        saved(keeper, state)
        if state.step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Keeper, "save", stop_after_two)
        train(configured("train", *shared, f"out={tmp_path / 'stopped'}"))
    again = train(configured("train", *shared, f"out={tmp_path / 'stopped'}"))
    first, second = (load_checkpoint(folder)[0] for folder in (whole, again))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_pretraining_takes_a_folder_of_pictures(tmp_path):
    draw_pixels = generator(0)
    (tmp_path / "pictures").mkdir()
    for index in range(12):
        pixels = torch.randint(256, (30 + index, 34, 3), dtype=torch.uint8, generator=draw_pixels).numpy()
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    few = [f"data={tmp_path / 'pictures'}", "actions=none", "image_size=28", "cameras=null", "validation=0.34"]
    options = ["system=ijepa_small", *TINY, *few, "window=1", "robot={hz: 1.0}"]
    folder = train(configured("train", *options, f"out={tmp_path / 'run'}"))
    assert published_encoder(folder)(torch.zeros(2, 3, 28, 28)).shape == (2, 16, 32)


def test_a_pretraining_takes_a_folder_of_films(tmp_path):
    write_clips(tmp_path / "films", sizes=[(32, 40)] * 4)
    few = [f"data={tmp_path / 'films'}", "actions=none", "image_size=28", "cameras=null", "validation=0.25"]
    options = ["system=vjepa2_small", *TINY, *few]
    folder = train(configured("train", *options, f"out={tmp_path / 'run'}"))
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    numbers = {key for line in lines for key in json.loads(line)}
    assert "held/loss" in numbers and not any(key.startswith("probe/") for key in numbers)
    assert published_encoder(folder)(torch.zeros(2, 3, 28, 28)).shape == (2, 16, 32)
    with pytest.raises(ValueError, match="best=hand needs a log with hand poses"):
        train(configured("train", *options, "best=hand", f"out={tmp_path / 'other'}"))


def test_its_encoder_is_published_for_others(run):
    encoder = published_encoder(run / "checkpoint")
    assert encoder(torch.zeros(2, 3, 28, 28)).shape == (2, 16, 32)
    with pytest.raises(BadCheckpoint, match="not a world model"):
        load_world_model(run / "checkpoint")


@pytest.mark.parametrize("run", ["ijepa_small"], indirect=True)
def test_a_trained_encoder_stands_in_front_of_another_predictor_by_its_name(run, log, tmp_path):
    named = ["system=leworldmodel", "encoder=ijepa_small", "encoder.system.preset=tiny", "freeze=[encoder.encoder]"]
    few = ["cameras=[left]", "window=4", "max_stride=1", "batch=4", "probe=8", "validation=0.34", "fit.steps=2"]
    begun = [f"pretrained={run / 'checkpoint'}", f"data={log}", f"out={tmp_path / 'run'}"]
    objective = load_world_model(train(configured("train", *named, *few, *begun))).objective
    mine, theirs = objective.encoder.encoder, published_encoder(run / "checkpoint")
    pairs = zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert objective.encode(torch.zeros(1, 1, 3, 28, 28, dtype=torch.uint8)).shape == (1, 1, 16, 64)


def test_the_probe_leaves_a_row_for_every_encoder_probe_and_seed(run, log, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(READERS, "attentive", partial(attentive, steps=3))
    cfg = configured(
        "probe",
        f"checkpoint={run / 'checkpoint'}",
        f"data={log}",
        "train=24",
        "held=12",
        "validation=0.34",
        "seeds=[0]",
    )
    rows = probe(cfg)
    assert {(row["encoder"], row["probe"]) for row in rows} == {
        (encoder, reader) for encoder in ("trained", "fresh", "plain") for reader in ("linear", "attentive")
    }
    table = summary(rows)
    draw(table, tmp_path / "probe.png")
    show(table)
    assert (tmp_path / "probe.png").stat().st_size > 5000 and "attentive" in capsys.readouterr().out


def test_the_probe_reads_hand_and_object_where_the_log_knows_both(log):
    bank = load_bank(log)
    knows = replace(bank, extras={OBJECT: torch.rand(len(bank.frames), 3, generator=generator(0))})
    only = replace(knows, proprio=knows.proprio[:, :0])
    options = {"seed": 0, "side": "held"}
    assert [list(samples(one, pixels, 4, **options)) for one in (bank, knows, only)] == [
        ["hand"],
        ["hand", "object"],
        ["object"],
    ]
    drawn = samples(knows, pixels, 40, **options)["object"]
    assert drawn.places.shape == (40, 3) and set(drawn.looks.tolist()) == set(bank.groups.tolist())
    with pytest.raises(ValueError, match="neither hand nor object positions"):
        samples(replace(bank, proprio=bank.proprio[:, :0]), pixels, 4, **options)


def scenes(labs, seed, *, knows):
    """Frames of labs, each with a place that is usual there; tokens know that place, or the frame's own."""
    draws = generator(seed)
    usual, looks = torch.randn(labs, 3, generator=draws), torch.arange(labs).repeat_interleave(8)
    own = usual[looks] + 0.3 * torch.randn(len(looks), 3, generator=draws)
    seen = own if knows == "place" else usual[looks]
    return Samples(tokens=seen[:, None], places=own, looks=looks)


def test_few_labels_are_the_first_of_all():
    drawn = made_up(400, 0)
    assert torch.equal(drawn.first(0.25).places, drawn.places[:100]) and len(drawn.first(0.001).places) == 10
    few, all_of = (judge(linear(drawn.first(share), generator=generator(0)), made_up(200, 1)) for share in (0.05, 1.0))
    assert few["mean_cm"] > all_of["mean_cm"]


def test_clouds_are_probed_beside_where_their_points_lie(tmp_path):
    """A system of clouds reads the place of a ball of points; so does the plain baseline."""
    system = {"_target_": "point_jepa", "preset": "tiny"}
    objective = assemble(system, generator=generator(0))
    interface = Interface(cameras=("left",), image_size=28, actions=(), dt_s=0.24)
    save_world_model(tmp_path / "clouds", objective, system=system, interface=interface)
    source = of_checkpoint(tmp_path / "clouds", device=torch.device("cpu"))
    centres = torch.rand(30, 1, 3, generator=generator(1))
    clouds = centres + 0.05 * torch.randn(30, 64, 3, generator=generator(2))
    assert source.sees == "clouds" and source.trained(clouds).dim() == 3
    known = Samples(tokens=PLAIN["clouds"](clouds), places=centres[:, 0], looks=torch.arange(30))
    assert known.tokens.shape == (30, 11, 3) and judge(linear(known, generator=generator(0)), known)["r2"] > 0.9


def test_a_system_of_sounds_has_no_place_to_read(tmp_path):
    system = {"_target_": "audio_jepa", "preset": "tiny"}
    interface = Interface(cameras=("left",), image_size=28, actions=(), dt_s=0.24)
    save_world_model(tmp_path / "sound", assemble(system, generator=generator(0)), system=system, interface=interface)
    with pytest.raises(BadCheckpoint, match="encodes sound, which has no position target"):
        of_checkpoint(tmp_path / "sound", device=torch.device("cpu"))


def test_features_that_know_the_look_alone_are_told_among_frames_that_look_alike():
    for knows in ("look", "place"):
        scores = judge(linear(scenes(40, 0, knows=knows), generator=generator(0)), scenes(20, 1, knows=knows))
        assert scores["r2"] > 0.8
        assert scores["r2_alike"] > 0.99 if knows == "place" else scores["r2_alike"] < 0.01


def test_the_probe_refuses_an_unknown_reader_and_a_missing_checkpoint(run, log, tmp_path):
    cfg = configured("probe", f"checkpoint={run / 'checkpoint'}", f"data={log}", "readers=[oracle]", "validation=0.34")
    with pytest.raises(UnknownName, match="attentive, linear"):
        probe(cfg)
    with pytest.raises(BadCheckpoint, match="no checkpoint"):
        probe(configured("probe", f"checkpoint={tmp_path / 'nothing'}", f"data={log}"))
    assert issubclass(UnknownName, MISTAKES) and issubclass(BadCheckpoint, MISTAKES)


@pytest.fixture
def vitl(tmp_path, monkeypatch):
    """A tiny file in the layout of Hugging Face that goes by the name of a released one, and its network."""
    release = Release(form=vjepa2, sizes=test_released.SIZES, image=64, file="vitl.pt", repository="facebook/none")
    monkeypatch.setitem(RELEASES, "vjepa2_vitl", release)
    network, weights = test_released.tiny()
    return test_released.save_folder(tmp_path / "vitl", test_released.hugging_face(weights)), network


def test_the_probe_judges_a_released_encoder_beside_the_same_with_fresh_weights(vitl, log):
    few = ["cameras=[left]", "train=24", "held=12", "validation=0.34", "seeds=[0]", "readers=[linear]", "device=cpu"]
    rows = probe(configured("probe", "encoder=vjepa2_vitl", f"hub={vitl[0]}", f"data={log}", *few))
    assert [row["encoder"] for row in rows] == ["trained", "fresh", "plain"]
    assert len({row["mean_cm"] for row in rows}) == 3


def test_tokens_of_a_released_encoder_are_its_own_or_their_means_over_neighbours(vitl):
    folder, network = vitl
    cpu = torch.device("cpu")
    frames = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator(0))
    each, few = (
        released({"model": "vjepa2_vitl", "hub": folder}, image=None, cells=cells, device=cpu).trained(frames)
        for cells in (8, 2)
    )
    with torch.no_grad():
        wanted = network.eval()(NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)(frames))
    assert each.shape == (2, 16, 48) and torch.allclose(each, wanted, atol=1e-5)
    assert torch.allclose(few[:, 0], each[:, [0, 1, 4, 5]].mean(1), atol=1e-6)


def test_the_probe_tells_how_to_get_a_released_encoder_and_that_it_sees_one_camera(vitl, log, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=without_network))
    with pytest.raises(BadCheckpoint, match=r"no connection.*hub=FOLDER"):
        probe(configured("probe", "encoder=vjepa2_vith", f"data={log}"))
    with pytest.raises(ValueError, match=r"one camera, not left, right: cameras=\[NAME\]"):
        probe(configured("probe", "encoder=vjepa2_vitl", f"hub={vitl[0]}", f"data={log}"))
    with pytest.raises(ValueError, match="a multiple of 16 px"):
        probe(configured("probe", "encoder=vjepa2_vitl", f"hub={vitl[0]}", f"data={log}", "image=60"))


def without_network(name, *, allow_patterns):
    raise FileNotFoundError("no connection")


def made_up(count, seed):
    """Tokens of which one is brighter; its place in the grid of 4 x 4 is what is to be read."""
    draws = generator(seed)
    at = torch.randint(16, (count,), generator=draws)
    tokens = 0.03 * torch.randn(count, 16, 5, generator=draws)
    tokens[torch.arange(count), at, 2] += 1.0
    places = torch.stack([at // 4, at % 4, (at // 4 + at % 4)], dim=1) * 0.1
    return Samples(tokens=tokens, places=places, looks=at % 3)


FITS = pytest.mark.parametrize("fit", [linear, partial(attentive, steps=200)], ids=["linear", "attentive"])


@FITS
def test_a_probe_reads_a_place_that_is_there(fit):
    scores = judge(fit(made_up(400, 0), generator=generator(0)), made_up(200, 1))
    assert scores["r2"] > 0.9 and scores["median_cm"] < 5  # places lie on a lattice of 10 cm


@FITS
def test_a_probe_finds_nothing_where_nothing_is(fit):
    noise = replace(made_up(400, 0), tokens=torch.randn(400, 16, 5, generator=generator(2)))
    held = replace(made_up(200, 1), tokens=torch.randn(200, 16, 5, generator=generator(3)))
    assert judge(fit(noise, generator=generator(0)), held)["r2"] < 0.2


def test_pixels_keep_the_order_of_patches():
    frames = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    frames[:, :, 8:, :8] = 255
    tokens = pixels(frames)
    assert tokens.shape == (1, 4, 192)
    assert torch.equal(tokens.mean(-1), torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
