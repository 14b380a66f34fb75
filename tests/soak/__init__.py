"""Long runs of what `make test` does for a moment: `python -m tests.soak --minutes 10`.

`coherence` has many processes at one memory through several files; `churn` lets functions come and go
under tools that look at them.
"""
