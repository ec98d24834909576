"""8. Patches, loader, one loop, state, optimisers and schedules, loggers."""
