"""2. What the data looks like."""
