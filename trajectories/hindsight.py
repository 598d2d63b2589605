"""Hindsight labels of handling: whether an object is in the hand, and its position, from proprioception alone.

The hand knows its own position, its commands and its opening. Fingers that stay wider apart than commanded are blocked
by something; where they release it, it stays until the hand comes back.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

LAG, BLOCKED_M = 0.16, 0.003  # share of a closing command that free fingers still have to go; wider: blocked
STOPPED_M = 0.004  # a step down that came so much less far was stopped
HELD_FRAMES, HELD_M, RISE_M = 2, 0.02, 0.015  # a hold lasts, and moves or rises, or it was a hand that pressed
AGREE_M = 0.03  # holds before and after a gap that are farther apart say nothing of the time between
NEAR_M, BESIDE_M = 0.06, 0.025  # a hand so near, and so far beside, may have pushed the object
DROPPED_M = 0.015  # what is released so much higher than it was taken falls
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
    """Whether something is in the hand, as far as it can be told.

    Free fingers hold nothing. Blocked ones hold something if it was there from the start, or if it came along: the hand
    rose by 1.5 cm with it, or moved by 2 cm without being pressed down as it closed. A hand that presses an object
    against the table cannot close its fingers either: it holds nothing if they close later, and if they are opened
    instead, it is not known.

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
    """Where the object is, seen from the hand, as far as it can be told.

    What is held is at the hand. Before it was first held it lay where the fingers grasped it, back to the last time
    that the hand may have pushed it. After the last hold it lies where it was released, unless it fell, until the hand
    comes back. Between two holds it lies still if both positions agree.

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
    """Frames that a step down led to which was stopped."""
    wanted, moved = np.concatenate([[0.0], step_m[:-1]]), np.diff(height_m, prepend=height_m[:1])
    return np.asarray((wanted < -STOPPED_M) & (moved - wanted > STOPPED_M))


def _came_along(hand_m: np.ndarray, pressed: Flags) -> bool:
    """Whether blocked fingers at these positions `R 3` carried what blocked them."""
    if len(hand_m) < HELD_FRAMES:
        return False
    rise = float((hand_m[:, 2] - np.minimum.accumulate(hand_m[:, 2])).max())
    return rise >= RISE_M or (not pressed.any() and float(np.linalg.norm(hand_m[-1] - hand_m[0])) > HELD_M)


def _frames_untouched(hand_m: np.ndarray, place_m: np.ndarray) -> int:
    """How many frames, seen from a hold, pass before the hand may have pushed what lies at that place."""
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
    """First frame and end of each stretch that is set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]
