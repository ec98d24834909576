"""11. Statistics and the report."""
