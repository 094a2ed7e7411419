"""The functions of the language that depend on their arguments alone, by kind, one table each.

Names have no case. What is lazy or asks for the deployment is in `rollcall_templates.evaluate` and
`rollcall_templates.surroundings`.
"""

from collections.abc import Mapping

from rollcall_templates.functions import collections, encoding, logic, numbers, text, times
from rollcall_templates.functions.arguments import Function

_TABLES = (
    text.TABLE,
    numbers.TABLE,
    collections.TABLE,
    logic.TABLE,
    encoding.TABLE,
    times.TABLE,
)
PURE: Mapping[str, Function] = {
    function.name.lower(): function for table in _TABLES for function in table
}
