"""A TCP port on loopback for a test."""

import socket


def free_port() -> int:
    """Return a TCP port that is free on loopback now. Another process may take it before the test does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
