"""The exact answer: the torus, noise schedules, and data distributions whose score is known at every noise width."""
