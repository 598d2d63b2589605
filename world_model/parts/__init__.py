"""Parts of the systems: predictors, objectives, masks, regularisers, targets, distances."""
