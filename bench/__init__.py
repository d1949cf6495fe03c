"""Side-by-side measurements against the tools people use today; `make bench` runs them.

Ours and the peer's take turns on the same work, several times; medians and ratios are printed.
The machine is noisy, so a ratio means more than a time.
"""
