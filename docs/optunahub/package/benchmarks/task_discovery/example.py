from __future__ import annotations

import optuna
import optunahub

task_discovery = optunahub.load_module("benchmarks/task_discovery")
problem = task_discovery.Problem(data="digits", n=50)
study = optuna.create_study(directions=problem.directions)
study.optimize(problem, n_trials=100)
print("told loss:", study.best_value)
print("confirmed loss:", problem.confirm(study.best_params))
