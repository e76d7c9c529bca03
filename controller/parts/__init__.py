"""What policies are made of: bands, ageing orders, coflows, laxity, deadline pressure, the RMLQ."""
