"""Runs: the schema of their configuration, how YAML becomes one, where their files are, and their checkpoints.

May import `physics`, `score`, `evaluation`. The only package that reads YAML or checkpoints.
"""

from utils.runs.checkpoints import load_score_network

__all__ = ["load_score_network"]
