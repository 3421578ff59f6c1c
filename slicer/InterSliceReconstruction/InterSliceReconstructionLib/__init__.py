"""Parts of the module, none of which imports Qt or Slicer but panel and swipe: they are given what they need of it.

They run in Slicer's Python, which may be as old as 3.9, and import nothing of the package that they start.
"""
