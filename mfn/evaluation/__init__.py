"""How well each model ranks: metrics, comparisons, confidence intervals."""
