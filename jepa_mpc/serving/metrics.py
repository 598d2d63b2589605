"""Server metrics in Prometheus format."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(kw_only=True)
class Metrics:
    """Counters since the server started; their size is constant.

    Args:
        connections: Currently connected clients.
        accepted: Accepted connections.
        turned_away: Refused handshakes: missing or wrong key, too many connections, or stopping.
        answered: Requests answered with actions.
        refused: Invalid requests.
        failed: Requests on which the server failed.
        seconds: Sum of the times from a request's arrival to its answer.
        buckets: Number of answers per interval of `BOUNDS_S` (upper bound inclusive); the last one counts all slower
            answers.
    """

    connections: int = 0
    accepted: int = 0
    turned_away: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def count_answer(self, seconds: float) -> None:
        """Count an answer and its duration."""
        self.answered += 1
        self.seconds += seconds
        self.buckets[bisect.bisect_left(BOUNDS_S, seconds)] += 1

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# TYPE jepa_mpc_connections gauge"
        yield f"jepa_mpc_connections {self.connections}"
        for name in ("accepted", "turned_away", "answered", "refused", "failed"):
            yield f"# TYPE jepa_mpc_{name}_total counter"
            yield f"jepa_mpc_{name}_total {getattr(self, name)}"
        yield "# TYPE jepa_mpc_answer_seconds histogram"
        total = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.buckets, strict=True):
            total += count
            yield f'jepa_mpc_answer_seconds_bucket{{le="{bound}"}} {total}'
        yield f"jepa_mpc_answer_seconds_sum {self.seconds:.6f}"
        yield f"jepa_mpc_answer_seconds_count {self.answered}"
