"""Pictures of what masked systems hide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from jepa_mpc.experiments.commands.render_masks import render
from jepa_mpc.face.evaluation.mask_panels import panels
from jepa_mpc.reporting.mask_pictures import DARK, SEEN
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.world_model.recipes import RECIPES
from tests.contracts.test_recipes import batch

ROOT = Path(__file__).resolve().parents[2]
GRIDS = {"ijepa": (4, 4), "vjepa2": (4, 4), "hjepa_pyramid": (4, 4), "mc_jepa_factored": (4, 4)}


def rows_of(name):
    objective = RECIPES[name](preset="tiny", generator=generator(0)).eval()
    return panels(objective, dict(batch(name)), generator(1))


@pytest.mark.parametrize("name", GRIDS)
def test_every_panel_shows_the_whole_grid_with_a_block_and_something_seen_or_dark(name):
    rows = rows_of(name)
    assert rows and all(panel.what.shape == GRIDS[name] for row in rows for panel in row)
    for row in rows:
        found = torch.cat([panel.what.flatten() for panel in row])
        assert found.max() >= 1 and found.min() in (DARK, SEEN) and all(panel.picture is not None for panel in row)


def test_a_cell_of_a_coarse_level_hides_all_tokens_in_it():
    coarse = rows_of("hjepa_pyramid")[1][0].what
    hidden = (coarse > 0).view(2, 2, 2, 2).sum(dim=(1, 3))
    assert set(hidden.flatten().tolist()) <= {0, 4} and (hidden == 4).any()


def test_clouds_and_sounds_have_panels_of_their_own():
    cloud, sound = rows_of("point_jepa")[0][0], rows_of("audio_jepa")[0][0]
    assert cloud.points.shape == (32, 3) and len(cloud.what) == len(cloud.centres)
    assert sound.picture.shape[-1] == 3 and sound.what.max() >= 1


def test_the_command_leaves_a_small_picture_and_refuses_what_hides_nothing(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=2, image_size=28)
    options = ["cameras=[left]", "window=4", f"data={log}", f"out={tmp_path / 'masks.png'}"]
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        asked = compose("render_masks", ["system.preset=tiny", *options])
        other = compose("render_masks", ["system=arm", *options])
    with Image.open(render(asked)) as drawn:
        assert min(drawn.size) > 100
    assert (tmp_path / "masks.png").stat().st_size < 100_000
    render(asked)  # its own image is replaced
    with pytest.raises(ValueError, match="hides no tokens: take a masked system"):
        render(other)
    Image.new("RGB", (4, 4)).save(tmp_path / "masks.png")
    with pytest.raises(ValueError, match="was not drawn by this command"):
        render(asked)
