"""Labels for logs of handling, computed after the fact: whether the hand holds an object, and where the object is.

They come from proprioception alone: position of the hand, commands, and opening of the gripper. Fingers that stay wider
apart than commanded are blocked by an object; where they release it, it stays until the hand comes back.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

LAG = 0.16  # share of a closing command that free fingers have not yet carried out at the end of the step
BLOCKED_M = 0.003  # fingers that are this much wider apart than free ones are blocked
STOPPED_M = 0.004  # a step down of at least this length was stopped if it fell short by more than this
HELD_FRAMES = 2  # shortest hold
HELD_M, RISE_M = 0.02, 0.015  # a blocked hand that moves or rises this far carries something; else it may only press
AGREE_M = 0.03  # if the object's positions before and after a gap differ by more, it was moved in between
NEAR_M, BESIDE_M = 0.06, 0.025  # a hand this near, and this far to the side, may have pushed the object
DROPPED_M = 0.015  # an object released this much higher than it was grasped falls
Flags = Annotated[np.ndarray, "T"]


def blocked(commanded_m: np.ndarray, opening_m: np.ndarray) -> Flags:
    """Frames in which something keeps the fingers apart.

        free_t = commanded_t + LAG max(0, commanded_t-1 - commanded_t),   blocked: opening_t - free_t > BLOCKED_M

    Free fingers that close end a step within 1.5 mm of `free_t` (720 random commands).

    Args:
        commanded_m: Commanded opening `T`, m.
        opening_m: Measured opening `T`, m.

    Returns:
        bool `T`.
    """
    before = np.concatenate([commanded_m[:1], commanded_m[:-1]])
    return np.asarray(opening_m - commanded_m - LAG * np.maximum(before - commanded_m, 0.0) > BLOCKED_M)


def in_hand(commanded_m: np.ndarray, opening_m: np.ndarray, hand_m: np.ndarray, step_m: np.ndarray) -> np.ndarray:
    """Whether the hand holds something, where that can be inferred.

    Free fingers hold nothing. Blocked fingers hold something if they are blocked from the first frame on, or if the
    object came along: the hand rose by 1.5 cm, or moved by 2 cm without pressing down as it closed. A hand that presses
    an object against the table cannot close its fingers either. In that case it holds nothing if the fingers close
    later; if they are opened instead, the label is unknown.

    Args:
        commanded_m: Commanded opening `T`, m.
        opening_m: Measured opening `T`, m.
        hand_m: Position of the hand `T 3`, m.
        step_m: Commanded displacement of the hand from each frame to the next `T 3`, m.

    Returns:
        `T`: 1 in the hand, 0 not, NaN unknown.
    """
    wide = blocked(commanded_m, opening_m)
    label = wide.astype(np.float64)
    pressed = _stopped(hand_m[:, 2], step_m[:, 2])
    for first, end in _runs(wide):
        if first and not _came_along(hand_m[first:end], pressed[max(0, first - 2) : first + 2]):
            slipped = end < len(wide) and commanded_m[end] <= commanded_m[end - 1]
            label[first:end] = 0.0 if slipped else np.nan
    return label


def object_from_hand(held: np.ndarray, hand_m: np.ndarray) -> np.ndarray:
    """Position of the object relative to the hand, where that can be inferred.

    A held object is at the hand. Before the first hold it lay where it was grasped, back to the last frame in which the
    hand may have pushed it. After the last hold it lies where it was released, unless it fell, until the hand comes
    back. Between two holds it lies still if the positions at both ends agree.

    Args:
        held: What `in_hand` says `T`.
        hand_m: Position of the hand `T 3`, m.

    Returns:
        `T 3`, m, in the axes of `hand_m`; NaN where it is not known.
    """
    sure = held == 1.0
    found = np.full(hand_m.shape, np.nan)
    holds = _runs(sure)
    if not holds:
        return found
    found[sure] = 0.0
    first, last = holds[0][0], holds[-1][1] - 1
    before = np.arange(first - 1, -1, -1)[: _frames_untouched(hand_m[:first][::-1], hand_m[first])]
    found[before] = hand_m[first] - hand_m[before]
    if hand_m[last, 2] - hand_m[holds[-1][0], 2] < DROPPED_M:
        after = np.arange(last + 1, len(hand_m))[: _frames_untouched(hand_m[last + 1 :], hand_m[last])]
        found[after] = hand_m[last] - hand_m[after]
    for (_, left), (taken, _) in zip(holds[:-1], holds[1:], strict=True):
        if np.linalg.norm(hand_m[left - 1] - hand_m[taken]) < AGREE_M:
            found[left:taken] = (hand_m[left - 1] + hand_m[taken]) / 2 - hand_m[left:taken]
    found[np.isnan(held)] = np.nan
    return found


def _stopped(height_m: np.ndarray, step_m: np.ndarray) -> Flags:
    """Frames at the end of a downward step that was stopped on its way."""
    wanted, moved = np.concatenate([[0.0], step_m[:-1]]), np.diff(height_m, prepend=height_m[:1])
    return np.asarray((wanted < -STOPPED_M) & (moved - wanted > STOPPED_M))


def _came_along(hand_m: np.ndarray, pressed: Flags) -> bool:
    """Whether a hand whose fingers were blocked at these positions `R 3` carried what blocked them."""
    if len(hand_m) < HELD_FRAMES:
        return False
    rise = float((hand_m[:, 2] - np.minimum.accumulate(hand_m[:, 2])).max())
    return rise >= RISE_M or (not pressed.any() and float(np.linalg.norm(hand_m[-1] - hand_m[0])) > HELD_M)


def _frames_untouched(hand_m: np.ndarray, place_m: np.ndarray) -> int:
    """Number of frames, counted away from a hold, until the hand may have pushed the object that lies at `place_m`."""
    apart = hand_m - place_m
    near, beside = np.linalg.norm(apart, axis=1) < NEAR_M, np.linalg.norm(apart[:, :2], axis=1) > BESIDE_M
    gone = np.flatnonzero(~near)
    leaves = int(gone[0]) if len(gone) else len(near)
    swept = np.flatnonzero(beside[:leaves])
    if len(swept):
        return int(swept[0])
    back = np.flatnonzero(near[leaves:])
    return leaves + int(back[0]) if len(back) else len(near)


def _runs(flags: Flags) -> list[tuple[int, int]]:
    """First frame of each run of set flags, and the frame after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]
