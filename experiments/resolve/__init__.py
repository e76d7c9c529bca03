"""From a scenario to jobs: everything left open is decided here."""
