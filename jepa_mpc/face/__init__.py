"""What users need in one import: agents put together, environments, episodes, features, logs, trainings.

The only part of `jepa_mpc` that looks up to the other packages; `jepa_mpc` loads it at use.
"""
