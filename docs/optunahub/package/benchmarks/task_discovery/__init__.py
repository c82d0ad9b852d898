from ._task_discovery import Problem

__all__ = ["Problem"]
