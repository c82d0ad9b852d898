"""What a task is good for (definitions, section 11): transfer to other images, affinity between tasks, a taxonomy.

`sources` says which tasks are sources and which are targets, `protocol` trains them, and `result` is what comes out.
`gain`, `affinity` and `taxonomy` are the mathematics, plain numbers in and out.
"""
