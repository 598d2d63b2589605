"""Recording logs: motion in simulated labs and in environments of gymnasium."""
