"""Which flow goes first: one policy per file, found by name.

A policy of your own needs no change here: see docs/policies/adding-a-policy.md.
"""

from controller.policies import (
    aalo,
    edf,
    edf_all,
    fair,
    fifo,
    hermod,
    karuna,
    llf,
    mfs,
    pias,
    reverse,
    sebf,
    sjf,
    stage,
    static,
    triage,
)
from controller.policies.registry import (
    describe,
    make_policy,
    policy_home,
    policy_names,
    policy_options,
    register,
)
from controller.policy import Policy, PolicyError

__all__ = [
    "Policy",
    "PolicyError",
    "aalo",
    "describe",
    "edf",
    "edf_all",
    "fair",
    "fifo",
    "hermod",
    "karuna",
    "llf",
    "make_policy",
    "mfs",
    "pias",
    "policy_home",
    "policy_names",
    "policy_options",
    "register",
    "reverse",
    "sebf",
    "sjf",
    "stage",
    "static",
    "triage",
]
