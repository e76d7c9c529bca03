"""From a scenario to jobs: what the scenario leaves open is decided here, once for all policies."""
