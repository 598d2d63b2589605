"""Object slots: recorded pucks, slots, predictors, counterfactuals, pushes."""
