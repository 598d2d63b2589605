"""Variants of systems with their own recipe: H-JEPA as in the public code, MC-JEPA with factored masks."""
