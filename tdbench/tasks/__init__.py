"""What can be done with found tasks: confirm labelings that anybody made, extend them to other images, compare them.

`tdbench tasks` prints what these modules compute. A search for many tasks is a run, and takes place in `arena`.
"""
