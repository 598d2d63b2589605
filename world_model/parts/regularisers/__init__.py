"""Regularisers that prevent collapse."""
