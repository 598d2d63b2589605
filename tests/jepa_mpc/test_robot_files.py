"""robot=FILE.yaml: what is no list of entries is told in one sentence and takes no memory."""

from __future__ import annotations

import pytest

from jepa_mpc.face.training.log_sources import robot_entries

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
STRANGE = {
    "aliases": (LAUGHS, "repeats entries by aliases"),
    "brackets": ("hz: [1", "expected"),
    "tabs": ("hz:\n\t- 1", "cannot start"),
    "no text": (b"\xff\xfe\xfa", "utf-8|codec"),
    "python": ("hz: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "nowhere": ("hz: ${nowhere}", "nowhere"),
    "too long": ("# " + "x" * (1 << 20), "more than"),
    "a list": ("- 1\n- 2", "a robot map is a list of entries"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_file_that_is_none_is_told_in_one_sentence(tmp_path, name):
    text, said = STRANGE[name]
    place = tmp_path / "robot.yaml"
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said) as told:
        robot_entries(str(place))
    assert "\n" not in str(told.value)


def test_a_sound_file_is_read(tmp_path):
    (tmp_path / "robot.yaml").write_text("hz: 1e1\nposition: [a, b]\n")
    assert robot_entries(str(tmp_path / "robot.yaml")) == {"hz": 10.0, "position": ["a", "b"]}
