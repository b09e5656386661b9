"""The room where a model learns: from a recipe to checkpoints.

``configuration`` is the recipe, ``loop`` is read from top to bottom, ``objective`` is what is minimised, ``checkpoints``
what is kept and resumed from, ``validation`` how well it does meanwhile.
"""
