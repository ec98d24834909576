"""6. Every decision and why: spacing, patch size, memory, batch size, put together in a Plan."""
