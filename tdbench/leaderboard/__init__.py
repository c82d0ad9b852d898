"""What can be concluded from results: ranks, intervals, comparisons, the threshold of a task.

It imports `store` and the floors below. It knows nothing of how runs go.
"""
