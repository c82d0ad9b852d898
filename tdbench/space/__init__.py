"""What a label vector is, and what it is worth: sources, image sets, reference tasks, and taskness by training.

It imports `engine` and `base`.
"""
