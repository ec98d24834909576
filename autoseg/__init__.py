"""autoseg: which segmentation network is best on my data, at what cost, and how sure can I be?

The packages are read in the order in which the data flows; see docs/design.md.
"""

__version__ = "0.1.0"
