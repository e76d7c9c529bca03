"""The burstiness of an interrupted Poisson process, by its formula."""

import math

from experiments.workloads.arrivals import BurstyProcess


def index_of_dispersion(process: BurstyProcess, window_s: float = math.inf) -> float:
    """Return the variance over the mean of the number of arrivals in windows of this length.

    With r the rate at which the process forgets whether it is in a burst (the sum of both rates of change),
    the index of long windows is 1 + 2 rate (1 - busy) / (busy r). In a window t the part beyond 1 is
    smaller by the factor 1 - (1 - exp(-r t)) / (r t) (Fischer and Meier-Hellstern, "The Markov-modulated
    Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993, with one rate 0).
    """
    r = 1 / (process.burst_s * (1 - process.busy))
    beyond = 2 * process.rate_rps * (1 - process.busy) / (process.busy * r)
    if math.isinf(window_s):
        return 1 + beyond
    return 1 + beyond * (1 + math.expm1(-r * window_s) / (r * window_s))
