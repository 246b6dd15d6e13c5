"""What stands in a notebook instead of definitions of genbook that need more than Paddle.

The module `standins.training.loop` stands in for `genbook.training.loop`, and so on: a definition
here takes the place of the one of the same name there. All else comes from the package itself.
"""
