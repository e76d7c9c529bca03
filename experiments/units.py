"""How many nanoseconds other units of time have."""

from controller.urgency import NS_PER_S

__all__ = ["NS_PER_MS", "NS_PER_S", "NS_PER_US"]

NS_PER_MS = NS_PER_S // 1_000
NS_PER_US = NS_PER_S // 1_000_000
