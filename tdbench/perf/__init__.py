"""How fast: trainings per second of the engines and of outside yardsticks, and the time that searchers take.

It imports `report` and the floors below.
"""
