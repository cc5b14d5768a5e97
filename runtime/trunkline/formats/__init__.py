"""Annotated texts in the formats of annotation tools: doccano, Prodigy, spaCy, Label Studio, CoNLL.

Reading needs no more than the standard library and numpy, as writing does.
"""
