"""The public functions: assembling agents, environments, episodes, features, logs, trainings.

The only part of `jepa_mpc` that imports the other packages; `jepa_mpc` loads it on use.
"""
