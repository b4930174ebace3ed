"""The `edit_session` model: both files beside this one are copied into the model's version folder.

They run inside Triton, on Python 3.11 or later and NumPy 1.26 or later, where edgedit is not installed.
"""
