"""10. Metrics of cases and folders."""
