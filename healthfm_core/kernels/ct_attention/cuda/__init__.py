"""Continuous-time attention on NVIDIA GPUs, in Triton (a package that PyTorch for CUDA brings)."""
