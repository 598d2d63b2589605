"""Any gymnasium environment as a task for planning: `envs.make("gym:Pendulum-v1")`."""
