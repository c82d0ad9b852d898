"""For other tools: the evaluation log in the formats of IOHanalyzer, data frames, and Optuna's dashboard.

It imports `leaderboard` and the floors below.
"""
