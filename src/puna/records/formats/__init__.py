"""One module per file format: a path goes in, rows come out.

Each reader yields rows in the order of the file. What is wrong with one row goes to the
quarantine with its line; what is wrong with the whole file is an InputError that names it.
"""
