"""The exact answer: the torus, the noise schedules, and data distributions whose score is known at every noise width.

Imports nothing of the project but the ground floor (settings, files, randomness).
"""
