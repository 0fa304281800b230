"""Findings and runs -> one self-contained HTML page."""

from batchscale.report.page.write import Written, write, write_report, write_together

__all__ = ["Written", "write", "write_report", "write_together"]
