"""What the speed benchmark measures: a plain rollout to compare with, and a control loop in real time."""
