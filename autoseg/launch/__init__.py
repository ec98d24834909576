"""13. Recipes that string the stages together: preparing a dataset, one fold, the demo."""
