"""How fast rollouts, searches, the simulator and a control loop are."""
