"""The ground floor: what knows nothing of images, networks or runs.

Errors meant for people, counter-based random numbers, statistics, versions and hardware, SQLite files, child
processes, progress bars. It imports nothing of tdbench.
"""
