"""Write the report of a result folder: figures and one self-contained HTML page. Imports no torch."""

from s2snet.report.page import write_report

__all__ = ["write_report"]
