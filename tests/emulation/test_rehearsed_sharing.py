"""How connections of rehearsed servers share a port."""

import json
import subprocess
import sys

import pytest
import shared_port

from testbed.coordinator.children import WORKING_DIRECTORY, environment
from testbed.emulation.sandbox import COMMAND

pytestmark = pytest.mark.slow


def test_messages_and_a_stream_share_the_port_of_a_server_evenly() -> None:
    """Whoever sends all the time has no more of the port than whoever sends a message after the other.

    With the queue on the server's own device, messages carried 0.64 of what the stream did.
    """
    done = subprocess.run(
        [*COMMAND, sys.executable, shared_port.__file__],
        cwd=WORKING_DIRECTORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    carried = json.loads(done.stdout)
    assert 0.75 < carried["messages"] / carried["stream"] < 1.3
