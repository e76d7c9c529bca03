"""Who goes first: one policy per file, found by name.

A policy of your own needs no change here: see docs/adding-a-policy.md.
"""

from controller.policies import fair, mfs, stage
from controller.policies.base import Policy, PolicyError
from controller.policies.registry import (
    describe,
    make_policy,
    option_lines,
    policy_names,
    register,
)

__all__ = [
    "Policy",
    "PolicyError",
    "describe",
    "fair",
    "make_policy",
    "mfs",
    "option_lines",
    "policy_names",
    "register",
    "stage",
]
