"""Small helpers on XML elements; every text comes back as it went in, prefixes included."""

import re
from collections.abc import Iterator, Mapping
from xml.dom import minidom
from xml.parsers.expat import ExpatError


def parsed(text: str) -> minidom.Element:
    """Return the root of an XML text. Raises ValueError."""
    try:
        root = minidom.parseString(text.encode()).documentElement
    except ExpatError as error:
        raise ValueError(f"it is no well-formed XML: {error}") from error
    if root is None:
        raise ValueError("it is empty")
    return root


def new_element(name: str) -> minidom.Element:
    """Return an element that belongs nowhere yet."""
    return minidom.Document().createElement(name)


def children(element: minidom.Element, name: str = "") -> Iterator[minidom.Element]:
    """Give the elements directly below, all or those of that name."""
    for each in list(element.childNodes):
        if isinstance(each, minidom.Element) and name in ("", each.localName):
            yield each


def child(element: minidom.Element, name: str) -> minidom.Element | None:
    """Return the first element of that name directly below."""
    return next(children(element, name), None)


def text_of(element: minidom.Element | None) -> str:
    """Return the text in an element."""
    if element is None:
        return ""
    return "".join(part.data for part in element.childNodes if isinstance(part, minidom.Text))


def plain(element: minidom.Element) -> str:
    """Return an element's XML, without the spaces between elements that are for people's eyes."""
    return re.sub(r">\s+<", "><", str(element.toxml()))


def set_all(element: minidom.Element, attributes: Mapping[str, str]) -> None:
    """Set those attributes that have a value."""
    for name, value in attributes.items():
        if value:
            element.setAttribute(name, value)


def escaped(text: str) -> str:
    """Return a text as it stands between tags and between either kind of quotes."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, written)
    return text.replace("'", "&apos;")
