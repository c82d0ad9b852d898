"""For people: the HTML page, its figures, and the pictures of found tasks.

It imports `leaderboard` and the floors below.
"""
