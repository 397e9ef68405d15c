"""Layers that know no model: pure-functional Flax modules.

One alphabet of axis names, in every annotation of the zoo:

    B  batch            T  target length     S  source length
    H  heads            D  head size         E  model width
    F  feed-forward     V  vocabulary        L  layers           K  beams

Every parameter is born with logical axis names (`embed mlp heads kv vocab layers`); `zoo.parallel.rules` maps them to
the axes of the mesh.
"""
