"""Action chunks: ACT-JEPA beside behaviour cloning."""
