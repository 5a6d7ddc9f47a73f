"""How fast Leadferry is, always measured beside something that everybody knows, in the same run.

`python -m benchmarks` runs all; `docs/benchmarks.md` has the numbers reached and how to read them.
"""
