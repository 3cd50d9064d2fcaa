"""Numbers that say how close a learned score, or its samples, are to the exact ones: one decorated function a metric.

May import `physics` and `score`. Importing this package registers all metrics, in the order of the tables.
"""

from utils.evaluation import score_metrics, sample_metrics, ode_metrics, field_metrics  # noqa: F401, I001
