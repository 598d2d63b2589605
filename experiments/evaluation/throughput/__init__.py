"""Throughput of rollouts, searches, the simulator and a control loop."""
