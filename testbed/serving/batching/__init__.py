"""Batches: which requests come next, how many fit, split prompts, and preemption."""
