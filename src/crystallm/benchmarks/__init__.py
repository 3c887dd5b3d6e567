"""The paper's benchmarks: crystals that a model wrote against crystals that are known.

Each module scores what it is given; none of them runs a model.
"""
