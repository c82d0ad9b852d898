"""How runs go: searchers in processes of their own, many runs in lockstep, one batch for all of them.

It imports `store` and the floors below. It knows nothing of leaderboards' conclusions.
"""
