"""World models with the Dynamics protocol: plans in, predicted futures out."""
