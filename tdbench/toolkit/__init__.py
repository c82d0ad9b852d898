"""Published for authors of plugins: what can be known about images and labelings before any training.

It imports `space`, `engine` and `base`. Plugins import from here and from `tdbench` itself, and from nothing else.
"""
