"""7. Crop, resample, normalise, store; and the way back for predictions."""
