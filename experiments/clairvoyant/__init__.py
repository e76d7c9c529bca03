"""Searches for a better schedule than those of the policies, by simulating the same work again and again."""
