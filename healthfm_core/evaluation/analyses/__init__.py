"""Questions about a model beyond its main score: what its states hold, for whom it works, and when.

`probes`, `physiology` and `smoothness` look at frozen states; `subgroups` at groups of people;
`missing_inputs` at modalities that are absent and at wearing that is removed or noisy.
"""
