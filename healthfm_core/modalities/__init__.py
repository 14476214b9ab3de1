"""The modalities a study can have: one file each, found and asked about through `registry`.

A further modality is a file here with its `ModalitySpec`, an encoder in `models.encoders`, and a
reader of the site's files. No other file names it.
"""
