"""Any gymnasium environment as a task that can be planned in: `envs.make("gym:Pendulum-v1")`."""
