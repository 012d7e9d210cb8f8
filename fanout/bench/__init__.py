"""Measurements of fanout itself: `python -m fanout.bench`, or `make bench`.

Each prints what it found beside its aim, and beside a floor that was measured in the same run on the same machine:
wall times say little about a machine that others use too, ratios and CPU seconds say more.
"""
