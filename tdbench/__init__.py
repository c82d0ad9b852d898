"""tdbench: a benchmark of optimizers on task discovery."""
