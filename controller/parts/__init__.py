"""Building blocks of policies: bands, ordering by a key, coflows, laxity, deadline pressure, queues."""
