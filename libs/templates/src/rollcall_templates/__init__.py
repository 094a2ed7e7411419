"""Azure Resource Manager templates (M53): the language, and the resources that one amounts to.

Pure: it reads a template and says which resources are to be written in which order, and with what
in them. Who has an HTTP server writes them. Facts: Microsoft's "Understand the structure and syntax
of ARM templates" and "ARM template functions".
"""
