"""Slow, idle and large connections against a real process, and its end under load."""

import json
import signal
import socket
import threading
import time

from ..deploy.conftest import process
from .test_server import exchange, post


def status(port, path=b"/healthz"):
    return exchange(port, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n").split(b" ", 2)[1]


def ends(connection, seconds):
    """Whether the server closes it within so many seconds."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def answer_on(connection):
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(65536)
    return received


def connect(port, sent=b""):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(sent)
    return connection


def test_headers_that_do_not_arrive_end_their_connection(bundle):
    with process(bundle, "--max-header-seconds", "0.5") as (_, port):
        with connect(port) as silent, connect(port, b"POST /predict HTTP/1.1\r\nhost: x\r\n") as slow:
            for _ in range(4):
                # A header that grows for ever is late all the same.
                time.sleep(0.1)
                slow.sendall(b"x-more: 1\r\n")
            assert ends(silent, 2)
            assert ends(slow, 2)
        # A body has its own time, and an idle connection after an answer its own.
        with connect(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as kept:
            assert answer_on(kept).startswith(b"HTTP/1.1 200")
            assert not ends(kept, 1)
            kept.sendall(b"GET /healthz HTTP/1.1\r\nhost")
            assert ends(kept, 2)


def test_headers_without_end_are_refused(bundle):
    with process(bundle) as (_, port), connect(port, b"GET /healthz HTTP/1.1\r\n") as connection:
        for _ in range(100):
            connection.sendall(b"x-more: " + b"1" * 1000 + b"\r\n")
            connection.settimeout(0.01)
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 400")


def test_idle_connections_keep_nobody_out(bundle):
    with process(bundle, "--max-connections", "8") as (_, port):
        with connect(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as kept:
            assert answer_on(kept)
            idle = [connect(port, b"GET /healthz HTTP/1.1\r\n") for _ in range(20)]
            time.sleep(1.2)
            idle += [connect(port, b"GET /healthz HTTP/1.1\r\n") for _ in range(20)]
            assert status(port) == b"200"
            assert sum(ends(connection, 0.2) for connection in idle[:20]) == 20
            # Who was answered before is not closed for those who never were.
            kept.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert answer_on(kept).startswith(b"HTTP/1.1 200")
        for connection in idle:
            connection.close()


def test_an_end_under_load_answers_what_is_open_and_refuses_the_rest(bundle):
    many = post(json.dumps({"texts": ["turn on the lamp"] * 5000}).encode())
    with process(bundle, "--max-texts", "5000") as (running, port):
        received = []
        threads = [threading.Thread(target=lambda: received.append(exchange(port, many))) for _ in range(2)]
        with connect(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as kept:
            assert answer_on(kept).startswith(b"HTTP/1.1 200")
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            running.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            kept.sendall(post(b'{"texts": ["rain"]}'))
            late = answer_on(kept)
            assert late.startswith(b"HTTP/1.1 503")
            assert b"connection: close" in late.lower()
            assert status(port) == b"503"
        for thread in threads:
            thread.join()
        assert [answer.count(b'"label"') for answer in received] == [5000, 5000]
        assert running.wait(10) == 0


def test_who_still_waits_at_the_end_is_told(bundle):
    many = post(json.dumps({"texts": ["turn on the lamp"] * 60_000}).encode())
    with process(bundle, "--max-texts", "60000", "--max-body-bytes", "9000000", "--grace-seconds", "2") as (
        running,
        port,
    ):
        received = []
        thread = threading.Thread(target=lambda: received.append(exchange(port, many)))
        thread.start()
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        thread.join()
        assert received[0].startswith(b"HTTP/1.1 503")
        assert running.wait(10) == 0
