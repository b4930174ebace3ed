"""The `edit_session` model: the files beside this one are copied into the version folder, with one out of `engines`.

They run inside Triton, on Python 3.11 or later and NumPy 1.26 or later, where edgedit is not installed.
"""
