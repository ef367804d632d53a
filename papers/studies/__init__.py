"""Studies across several papers: evidence for the defaults of the house."""
