"""Settings for all tests."""

from hypothesis import settings

# The same examples every time: a test that fails in CI fails here. To search for new ones:
# pytest --hypothesis-profile=search
settings.register_profile("search", deadline=None, max_examples=1000)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
