"""Many clients at once, some of them sending rubbish: nothing is lost and nothing grows."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jepa_mpc.serving.wire import pack
from tests.serving.running import Client, Limits, picture, request, running

CLIENTS = 8
SIDE = 64
RUBBISH = [b"", b"\xc1" * 40, b"\xdd\xff\xff\xff\xff", "text", pack({"observation/image": picture()[..., 0]})]


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def load(port: int, requests: int, *, name: int, every: int) -> tuple[list[float], int]:
    """Send requests one after another; each `every`-th is rubbish and costs a new connection. Times in ms, refusals."""
    times, refused = [], 0
    client = Client(port)
    for number in range(requests):
        if number % every == every - 1:
            with pytest.raises(RuntimeError):
                client.ask(RUBBISH[(number // every) % len(RUBBISH)])
            client.socket.close()
            client, refused = Client(port), refused + 1
            continue
        began = time.perf_counter()
        answer = client.infer(request(name, goal=number % 200, size=SIDE))
        times.append(1000 * (time.perf_counter() - began))
        assert answer["actions"][0, :2].tolist() == [name, number % 200]
    client.socket.close()
    return times, refused


def storm(port: int, each: int, *, every: int) -> tuple[np.ndarray, int]:
    results: list[tuple[list[float], int]] = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(load(port, each, name=name, every=every)))
        for name in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == CLIENTS
    return np.concatenate([times for times, _ in results]), sum(refused for _, refused in results)


@pytest.mark.parametrize(
    "each", [50, pytest.param(1250, marks=pytest.mark.slow)], ids=["400 requests", "10 000 requests"]
)
def test_eight_clients_lose_nothing(each, capsys):
    with running(limits=Limits(connections=2 * CLIENTS), workers=2) as (server, port):
        storm(port, 50, every=10)  # buffers and threads come to their size
        before_mib, done, wrong = resident_mib(), server.metrics.answered, server.metrics.refused
        times, refused = storm(port, each, every=10)
        grown_mib = resident_mib() - before_mib
        assert server.metrics.answered - done == len(times) == CLIENTS * (each - each // 10)
        assert server.metrics.refused - wrong == refused == CLIENTS * (each // 10)
        assert server.metrics.failed == 0
        assert sum(server.metrics.buckets) == server.metrics.answered
    p50, p99 = np.percentile(times, [50, 99])
    found = f"{len(times)} answers, {refused} refusals: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {grown_mib:+.1f} MiB"
    with capsys.disabled():
        sys.stdout.write(f"\n{found}\n")
    assert grown_mib < 8  # two pictures of each answered request, kept, are 8.4 MiB in the short run already
    assert server.metrics.connections == 0 and not server._idle
