"""What the commands evaluate, a package each: tasks, scores, tables, figures."""
