"""The highest rate at which a policy keeps an SLO attainment: bracketed, bisected, and compared."""
