"""14. Argument parsing and nothing else."""
