"""Running a scenario: every policy on a fabric, with the results in a directory."""
