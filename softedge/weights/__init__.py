"""Where a network's first weights come from, and the preprocessing that belongs to them.

packages.py       weights inside an installed Python package
hub.py            timm's hub, where it gives them
files.py          a file in one of the common layouts, read without unpickling code
unpickling.py     what such a file may hold beside tensors, none of which is made
layouts.py        other libraries' names for timm's tensors, and the check that every tensor is used
heads.py          which classifier in a file is that of the network
preprocessing.py  mean, std, interpolation and crop
starting.py       which of these a recipe's ``backbone.weights`` means
"""
