"""What a policy of another package imports: see docs/policies/adding-a-policy.md."""

from controller.policy import UNCHANGED, NoOptions, Policy, PolicyError, Verdict, Verdicts
from controller.view import ActiveBatch, ActiveFlow, View

__all__ = [
    "UNCHANGED",
    "ActiveBatch",
    "ActiveFlow",
    "NoOptions",
    "Policy",
    "PolicyError",
    "Verdict",
    "Verdicts",
    "View",
]
