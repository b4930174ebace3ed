"""The studio: a page on which people edit a photo, and what it needs beside the gateway that serves it.

`page.attach` adds the page and the documentation of the HTTP interface to a gateway's application; `local.LocalBackend`
lets that gateway run a bundle in its own process, with no Triton. `static` holds the page's sources as they are served:
modules and a style sheet, nothing built and nothing from elsewhere.
"""
