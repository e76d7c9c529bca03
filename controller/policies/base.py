"""What a policy in another package imports: see docs/policies/adding-a-policy.md."""

from controller.parts.ordered import Ageing, AgeingOptions, Ordered, OrderedOptions
from controller.policy import UNCHANGED, NoOptions, Policy, PolicyError, Verdict, Verdicts
from controller.view import ActiveBatch, ActiveFlow, View

__all__ = [
    "UNCHANGED",
    "ActiveBatch",
    "ActiveFlow",
    "Ageing",
    "AgeingOptions",
    "NoOptions",
    "Ordered",
    "OrderedOptions",
    "Policy",
    "PolicyError",
    "Verdict",
    "Verdicts",
    "View",
]
