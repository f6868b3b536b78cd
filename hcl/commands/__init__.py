"""The commands that train and score; nothing else in the package imports them.

``train.py`` and ``evaluate.py`` start them in a clone, ``hcl-train`` and ``hcl-evaluate`` where the project
is installed; in both cases a launcher such as torchrun finds them by module name (``--module``).
"""
