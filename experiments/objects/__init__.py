"""What the benchmark of object slots is made of: recorded pucks, slots, predictors, scores, pushes, pictures."""
