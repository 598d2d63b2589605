"""The only Transformer parts in the house: attention, blocks, positions, weight drawing."""
