"""The planner benchmark: cells of one planner on one start, what they cost, tables, figures, one page."""
