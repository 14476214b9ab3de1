"""Few bytes: updates and models as fewer bits than float32, and what was lost of them kept.

`quantization` writes numbers of one array in 8 or 16 bits, `compressor` an update's groups as the
arrays that travel, with the residual that its sender adds to the next one (error feedback).
"""
