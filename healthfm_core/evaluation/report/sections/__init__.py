"""The report's parts, as plain values the template only has to lay out."""

from healthfm_core.evaluation.report.sections.table_layout import arms_of, headline, headline_first

__all__ = ["arms_of", "headline", "headline_first"]
