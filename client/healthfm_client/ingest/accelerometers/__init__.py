"""Raw files of accelerometers: three makers' formats, and what is made of their samples."""
