"""How long a study would take: a measured step, real message sizes, and rounds in virtual time.

`measured_start` trains a few steps here and knows the model; `message_sizes` encodes it as the run
would; `planned_rounds` lets orders of those sizes go their ways in a simulated network, under the
run's own deadlines, without training; `study_plan` puts settings side by side.
"""
