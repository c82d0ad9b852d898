"""How fast: trainings per second of the engines beside outside yardsticks, and the costs of asking searchers.

It imports `report` and the floors below.
"""
