"""Evaluations of the commands, one package each: tasks, scores, tables, figures."""
