"""1. What the user gives: dataset layouts, cases, labels and regions, volumes with geometry, splits."""
