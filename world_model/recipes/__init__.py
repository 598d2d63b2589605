"""One file per named system: recipes choose and size parts."""
