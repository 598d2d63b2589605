"""World models behind the Dynamics protocol: plans in, imagined futures out."""
