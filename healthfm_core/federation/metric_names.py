"""What a metric's name says of it; without the model, for processes that only show metrics."""


def is_count(metric: str) -> bool:
    """Whether a metric counts people: over sites it is added up, where others are averaged."""
    return metric.endswith("_subjects")
