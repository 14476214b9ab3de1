"""A run's history in other programs: TensorBoard, MLflow, Weights & Biases."""
