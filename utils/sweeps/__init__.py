"""Sweeps: which runs a grid consists of, the results of many runs, and what they say over seeds.

May import everything but `plots` and `reports`.
"""
