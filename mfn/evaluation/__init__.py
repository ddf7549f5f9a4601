"""What each model is worth: metrics, comparisons, intervals."""
