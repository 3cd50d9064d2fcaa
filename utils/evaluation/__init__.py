"""How close a learned score, or its samples, are to the exact ones. The import registers all metrics, in this order."""

from utils.evaluation import score_metrics, sample_metrics, ode_metrics, field_metrics  # noqa: F401, I001
