"""The server on a socket: who is let in, what mistakes are answered with, how it stops."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from jepa_mpc.serving.wire import pack
from tests.serving.running import METADATA, Client, Limits, Mirror, picture, request, running, session


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_server_speaks_first_and_answers_each_request():
    with running() as (_, port), Client(port) as client:
        assert client.metadata == METADATA
        first, second = client.infer(request(3)), client.infer(request(4))
        assert first["actions"].tolist() == [[3.0, 9.0, 1.0]] and second["actions"].tolist() == [[4.0, 9.0, 2.0]]
        assert set(first["server_timing"]) == {"infer_ms"}
        assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"] > 0


def test_connections_are_episodes_of_their_own():
    with running() as (_, port), Client(port) as one, Client(port) as other:
        counts = [client.infer(request())["actions"][0, 2] for client in (one, other, one, other)]
        assert counts == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\x01\x02", "expected a msgpack map"),
        ("hello", "expected a binary msgpack frame, got text"),
        (pack({"prompt": "go"}), "lacks the image observation/image"),
    ],
)
def test_a_mistake_is_told_as_text_and_ends_the_connection(frame, words):
    with running() as (server, port):
        with Client(port) as client:
            with pytest.raises(RuntimeError, match=words):
                client.ask(frame)
            with pytest.raises(ConnectionClosed) as closed:
                client.socket.recv()
            assert closed.value.rcvd.code == 1011
        with Client(port) as client:  # others do not notice
            client.infer(request())
        assert (server.metrics.refused, server.metrics.failed, server.metrics.answered) == (1, 0, 1)


def test_a_fault_of_the_server_shows_the_client_nothing_of_its_inside(caplog):
    class Broken(Mirror):
        def act(self, observation):
            raise RuntimeError("secret at /home/me")

    with running(lambda: session(Broken())) as (server, port), Client(port) as client:
        with pytest.raises(RuntimeError) as told:
            client.infer(request())
        assert "secret" not in str(told.value) and "Traceback" not in str(told.value)
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.recv()
        assert closed.value.rcvd.code == 1011 and "secret" not in closed.value.rcvd.reason
        assert server.metrics.failed == 1
    assert "secret at /home/me" in caplog.text


def test_a_key_is_asked_for_of_all_but_the_health_check():
    with running(api_key="correct") as (server, port):
        for key in (None, "wrong", "correctx", "correc"):
            with pytest.raises(InvalidStatus, match="401"):
                Client(port, key=key)
        with Client(port, key="correct") as client:
            client.infer(request())
        assert get(port, "/healthz") == (200, "OK\n")
        assert get(port, "/metrics")[0] == 401
        assert "jepa_mpc_answered_total 1" in get(port, "/metrics", Authorization="Api-Key correct")[1]
        assert server.metrics.turned_away == 5


def test_no_more_clients_are_let_in_than_allowed():
    with running(limits=Limits(connections=1)) as (_, port):
        with Client(port) as client:
            with pytest.raises(InvalidStatus, match="503"):
                Client(port)
            client.infer(request())
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with Client(port) as client:
                    client.infer(request())
                break
            except InvalidStatus:
                time.sleep(0.02)
        else:
            pytest.fail("the place never became free")


def test_a_frame_that_is_too_large_is_not_taken():
    with running(limits=Limits(frame_bytes=20_000)) as (_, port), Client(port) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.infer({**request(), "observation/image": picture(size=200)})
        assert closed.value.rcvd.code == 1009


def test_thinking_does_not_keep_the_server_from_listening():
    slow = running(lambda: session(Mirror(think_s=0.5)), workers=2)
    with slow as (_, port), Client(port) as one, Client(port) as other:
        began = time.monotonic()
        threads = [threading.Thread(target=client.infer, args=(request(),)) for client in (one, other)]
        for thread in threads:
            thread.start()
        assert get(port, "/healthz")[0] == 200 and time.monotonic() - began < 0.45
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 0.95


def test_a_request_in_work_is_answered_before_the_server_stops():
    got = []
    with running(lambda: session(Mirror(think_s=0.4))) as (server, port):
        busy, idle = Client(port), Client(port)
        thread = threading.Thread(target=lambda: got.append(busy.infer(request())))
        thread.start()
        time.sleep(0.15)
    thread.join(10)
    assert len(got) == 1 and server.metrics.connections == 0
    for client in (busy, idle):
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.recv()
        assert closed.value.rcvd.code == 1001


def test_a_client_that_goes_away_in_mid_plan_leaves_nothing_behind():
    with running(lambda: session(Mirror(think_s=0.2))) as (server, port):
        client = Client(port)
        client.socket.send(pack(request()))
        client.socket.socket.close()
        deadline = time.monotonic() + 10
        while server.metrics.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.metrics.connections == 0 and not server._idle


def test_a_stale_observation_is_refused_on_the_wire():
    with running(lambda: session(max_age_s=0.2)) as (_, port), Client(port) as client:
        client.infer(request(**{"observation/time_s": 7.0}))
        with pytest.raises(RuntimeError, match="stale observation"):
            client.infer(request(**{"observation/time_s": 6.9}))


def test_what_is_no_websocket_gets_an_answer_too():
    with running() as (_, port):
        assert get(port, "/")[0] == 426
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{port}/healthz").__enter__()
