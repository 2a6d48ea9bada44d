"""Reports: any dimensions, metrics and filters; the URL is the report, in the API's own parameters."""

from edge.admin.console.reports.show import PAGE

__all__ = ["PAGE"]
