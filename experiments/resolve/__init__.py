"""From a scenario to jobs: everything that it leaves open is decided here, once for all policies."""
