"""The commands that train and score: they stand above the whole package, and nothing in it imports them.

``train.py`` and ``evaluate.py`` start them in a clone, ``hcl-train`` and ``hcl-evaluate`` where the project
is installed; a launcher of processes finds them in both by the name of the module (``--module``).
"""
