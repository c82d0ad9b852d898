"""What plugins are: the interfaces of searchers and reductions, the hooks, and how plugins are found.

It imports `base` only, so that the process of a searcher starts without torch.
"""
