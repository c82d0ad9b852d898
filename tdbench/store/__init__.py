"""What was evaluated, on disk: the evaluation log, the leaderboard's rows, and the curves that studies remember.

It imports `settings`, `space`, `engine`, `searchers` and `base`.
"""
