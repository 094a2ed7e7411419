"""Authoring of image feeds: a simplestreams folder that any web server can serve."""
