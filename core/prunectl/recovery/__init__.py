"""Recovery: training a pruned model until it is as good again, on labels or on what the unpruned model says."""
