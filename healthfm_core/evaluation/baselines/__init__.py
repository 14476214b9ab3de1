"""What a model has to beat, at the next visit and at a label."""
