"""Replays what a real kernel answered, call by call, inside a machine: `python -m tests.truth`.

`probe` and the modules of the phases do what the recording program did, in its order; `caller.c` does the
calls inside the machine, one at a time; `compare` sets the answers beside the recorded ones.
"""
