"""The planner benchmark: cells of one planner on one start, their costs, tables, figures, one page."""
