"""Where an object was along an episode, from what was read of it in every frame.

    x_t = x_t-1 + e_t,   |e_t| ~ 5 cm exp(-(d_t / 4.5 cm)^2),   d_t the distance of x_t-1 from the hand's step
    hand_t + reading_t = x_t + noise of the expected error

A Kalman filter forwards and a smoother backwards (Rauch, Tung, Striebel 1965): an object moves only where the hand is
near, so what is seen before and after a push says where it was during it.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

MOVED_M, REACH_M = 0.05, 0.045  # how far a hand moves what it is near in one step; how near that is
FIRST_M = 1.0  # how far the first reading may be off
DRIFT_M = 1e-4
Array = NDArray[np.float64]


def tracked(
    readings_m: Annotated[Array, "T 3"], doubts_m: Annotated[Array, "T"], hand_m: Annotated[Array, "T 3"]
) -> tuple[Annotated[Array, "T 3"], Annotated[Array, "T"]]:
    """The object seen from the hand in every frame, and the error to be expected of it (m).

    Args:
        readings_m: The object as read in each frame, seen from the hand.
        doubts_m: Expected error of each reading, positive.
        hand_m: Position of the hand.
    """
    seen, noise = hand_m + readings_m, np.square(doubts_m)
    place, spread = np.empty_like(seen), np.empty(len(seen))  # with what was seen up to each frame
    before = np.empty(len(seen))  # variance without the frame itself
    guess, variance = seen[0], FIRST_M**2
    for t in range(len(seen)):
        if t:
            away = min(np.linalg.norm(hand_m[t - 1] - guess), np.linalg.norm(hand_m[t] - guess))
            variance = spread[t - 1] + (MOVED_M * np.exp(-((away / REACH_M) ** 2))) ** 2 + DRIFT_M**2
        before[t] = variance
        gain = variance / (variance + noise[t])
        guess = guess + gain * (seen[t] - guess)
        place[t], spread[t] = guess, (1.0 - gain) * variance
    for t in range(len(seen) - 2, -1, -1):
        back = spread[t] / before[t + 1]
        place[t] += back * (place[t + 1] - place[t])  # an object is expected to stay
        spread[t] += back**2 * (spread[t + 1] - before[t + 1])
    return place - hand_m, np.sqrt(spread)
