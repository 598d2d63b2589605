"""Variants of systems that have a recipe of their own: H-JEPA as the public code has it, MC-JEPA with two factors."""
