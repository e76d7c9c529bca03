"""Settings for all tests."""

import os

from hypothesis import settings

# torch computes in one thread, as ranks do. More of them would spin while they wait for one another, on cores
# that other tests need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time: a test that fails in CI fails here. To search for new ones:
# pytest --hypothesis-profile=search
settings.register_profile("search", deadline=None, max_examples=1000)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
