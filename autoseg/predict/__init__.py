"""9. Sliding window over whole volumes, and export in the geometry of the input."""
