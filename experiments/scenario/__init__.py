"""What a scenario is: its keys and what each may be, reading it from YAML, and writing it back."""
