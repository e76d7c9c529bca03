"""Running a scenario: every policy on a fabric, into a directory of results."""
