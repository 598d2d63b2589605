"""Reference numbers: our parts must give what the published implementations gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import (
    act_jepa,
    audio_jepa,
    causal_jepa,
    descent_trace,
    dinowm,
    hjepa,
    lejepa,
    lewm,
    mask_statistics,
    mc_jepa,
    placed,
    planner_quality,
    planner_trace,
    pldm,
    point_jepa,
    sigreg,
    think_jepa,
    vjepa2_ac,
    vjepa2_encoder,
    vjepa2_masked,
)
from tests.golden.cases import Case, find_cases

CHECKS = {
    "lewm": lewm.check,
    "sigreg": sigreg.check,
    "pldm": pldm.check,
    "planner_trace": planner_trace.check,
    "planner_quality": planner_quality.check,
    "gd_planner_trace": descent_trace.check,
    "dinowm_predictor": dinowm.check,
    "vjepa2_ac_predictor": vjepa2_ac.check_predictor,
    "vjepa2_ac_rollout": vjepa2_ac.check_rollout,
    "vjepa2_ac_losses": vjepa2_ac.check_losses,
    "vjepa2_ac_planner": vjepa2_ac.check_planner,
    "cem_planner": vjepa2_ac.check_toy_planner,
    "vjepa2_encoder": vjepa2_encoder.check_v2,
    "vjepa2_1_encoder": vjepa2_encoder.check_v21,
    "mask_collator": vjepa2_masked.check_masks,
    "vjepa2_predictor": vjepa2_masked.check_v2_predictor,
    "vjepa2_1_predictor": vjepa2_masked.check_v21_predictor,
    "vjepa2_masked_loss": vjepa2_masked.check_v2_loss,
    "vjepa2_1_dense_loss": vjepa2_masked.check_v21_loss,
    "preprocessing": vjepa2_encoder.check_preprocessing,
    "vjepa2_ac_encode": vjepa2_ac.check_encode,
    "pose_helpers": vjepa2_ac.check_poses,
    "mcjepa_reference_ops": mc_jepa.check,
    "act_jepa": act_jepa.check,
    "slot_attention": causal_jepa.check_slot_attention,
    "savi_slot_attention": causal_jepa.check_savi,
    "videosaur_chain": causal_jepa.check_videosaur,
    "cjepa_predictor": causal_jepa.check_predictor,
    "cjepa_predictor_ap": causal_jepa.check_with_nodes,
    "cjepa_rollout": causal_jepa.check_rollout,
    "cjepa_matching": causal_jepa.check_matching,
    "thinkjepa_guidance": think_jepa.check,
    "ijepa": placed.check_pictures,
    "vjepa": placed.check_clips,
    "ijepa_mask_stats": mask_statistics.check_blocks,
    "vjepa_mask_stats": mask_statistics.check_tubes,
    "vjepa_random_tube_stats": mask_statistics.check_random_tubes,
    "hjepa": hjepa.check,
    "hjepa_hierarchical_mask_stats": mask_statistics.check_levels,
    "lejepa_loss": lejepa.check,
    "audio_jepa": audio_jepa.check,
    "audio_jepa_mel": audio_jepa.check_mel,
    "audio_jepa_random_mask_stats": audio_jepa.check_random_masks,
    "point_jepa": point_jepa.check,
    "point_jepa_sampler_stats": point_jepa.check_sampler,
}
"""Kind of a case -> what to run on it."""

SHIPPED = Path(__file__).parent / "data"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = find_cases([SHIPPED, *metafunc.config.getoption("--golden")])
        metafunc.parametrize("case", cases, ids=[f"{case.path.parent.name}/{case.path.stem}" for case in cases])


def test_reference_case_is_reproduced(case: Case) -> None:
    if case.kind not in CHECKS:
        pytest.skip(f"kind {case.kind!r} of {case.path.name} is not covered")
    case.load()
    CHECKS[case.kind](case)
    case.finish()


def test_shipped_cases_are_compact() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 6_000_000


def test_shipped_cases_cover_network_and_regulariser() -> None:
    assert {"lewm", "sigreg"} <= {case.kind for case in find_cases([SHIPPED])}
