"""Compute kernels: functions of tensors, without parameters; one folder each."""
