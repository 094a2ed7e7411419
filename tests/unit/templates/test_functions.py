"""Each function with the examples of Microsoft's documentation ("ARM template functions")."""

import json
from typing import Any

import pytest
from rollcall_templates.errors import TemplateError
from rollcall_templates.values import same
from rollcall_testing.templating import GROUP, value_of

# Where an example of the documentation takes a parameter, its value stands here.
PARAMETERS: dict[str, dict[str, Any]] = {
    "arrayToConvert": {"type": "array", "defaultValue": ["one", "two", "three"]},
    "firstArray": {"type": "array", "defaultValue": ["1-1", "1-2", "1-3"]},
    "secondArray": {"type": "array", "defaultValue": ["2-1", "2-2", "2-3"]},
    "intArray": {"type": "array", "defaultValue": [0, 3, 2, 5, 4]},
    "object": {"type": "object", "defaultValue": {"one": "a", "two": "b", "three": "c"}},
    "objectArray": {"type": "object", "defaultValue": {"one": "a", "three": {"x": [1]}}},
    "nulls": {
        "type": "object",
        "defaultValue": {
            "null1": None,
            "null2": None,
            "string": "default",
            "int": 1,
            "object": {"first": "default"},
            "array": [1],
        },
    },
    "firstObject": {
        "type": "object",
        "defaultValue": {"one": "a", "two": "b", "three": "c1"},
    },
    "secondObject": {
        "type": "object",
        "defaultValue": {"three": "c2", "four": "d", "five": "e"},
    },
    "nested1": {
        "type": "object",
        "defaultValue": {"p": {"one": "a", "two": "b"}, "q": [1, 2]},
    },
    "nested2": {"type": "object", "defaultValue": {"p": {"two": "c"}, "q": [3]}},
    "json": {"type": "string", "defaultValue": '{"a": "b"}'},
}

TEXT = [
    ("[base64('one, two, three')]", "b25lLCB0d28sIHRocmVl"),
    ("[base64ToString(base64('one, two, three'))]", "one, two, three"),
    ("[base64ToJson(base64(parameters('json')))]", {"a": "b"}),
    ("[concat('prefix', '-', 'end')]", "prefix-end"),
    (
        "[concat(parameters('firstArray'), parameters('secondArray'))]",
        ["1-1", "1-2", "1-3", "2-1", "2-2", "2-3"],
    ),
    ("[concat('a', 1, true())]", "a1True"),
    ("[contains('OneTwoThree', 'e')]", True),
    ("[contains('OneTwoThree', 'z')]", False),
    ("[contains('OneTwoThree', 'onetwo')]", False),
    ("[dataUri('Hello')]", "data:text/plain;charset=utf8;base64,SGVsbG8="),
    (
        "[dataUriToString('data:;base64,SGVsbG8sIFdvcmxkIQ==')]",
        "Hello, World!",
    ),
    ("[dataUriToString('data:text/plain,Hello%20you')]", "Hello you"),
    ("[empty('')]", True),
    ("[empty('a')]", False),
    ("[endsWith('abcdef', 'ef')]", True),
    ("[endsWith('abcdef', 'F')]", True),
    ("[endsWith('abcdef', 'e')]", False),
    ("[first('One Two Three')]", "O"),
    ("[first('')]", ""),
    (
        "[format('{0}, {1}. Formatted number: {2:N0}', 'Hello', 'User', 8175133)]",
        "Hello, User. Formatted number: 8,175,133",
    ),
    ("[format('{{0}} {0,4}|{0,-4}|', 'ab')]", "{0}   ab|ab  |"),
    ("[format('{0:D4} {0:X} {0:x4} {0:F1} {0:N2}', 255)]", "0255 FF 00ff 255.0 255.00"),
    ("[format('{0}', createArray(1, 2))]", "[1,2]"),
    ("[guid('a')]", "3703365d-5a9f-59b4-bca7-b9681389e4c1"),
    ("[indexOf('test', 't')]", 0),
    ("[indexOf('abcdef', 'CD')]", 2),
    ("[indexOf('abcdef', 'z')]", -1),
    ("[lastIndexOf('test', 't')]", 3),
    ("[lastIndexOf('abcdef', 'AB')]", 0),
    ("[lastIndexOf('abcdef', 'z')]", -1),
    ("[join(createArray('one', 'two', 'three'), ',')]", "one,two,three"),
    ("[last('One Two Three')]", "e"),
    ("[length('One Two Three')]", 13),
    ("[padLeft('123', 10, '0')]", "0000000123"),
    ("[padLeft(7, 3)]", "  7"),
    ("[replace('123-123-1234', '-', '')]", "1231231234"),
    ("[replace('123-123-1234', '1234', 'xxxx')]", "123-123-xxxx"),
    ("[skip('one two three', 4)]", "two three"),
    ("[split('one,two,three', ',')]", ["one", "two", "three"]),
    ("[split('one;two,three', createArray(',', ';'))]", ["one", "two", "three"]),
    ("[startsWith('abcdef', 'ab')]", True),
    ("[startsWith('abcdef', 'A')]", True),
    ("[startsWith('abcdef', 'e')]", False),
    ("[string(createArray('a', 'b', 'c'))]", '["a","b","c"]'),
    ("[string(createObject('a', 10, 'b', 'Example Text'))]", '{"a":10,"b":"Example Text"}'),
    ("[string(5)]", "5"),
    ("[string(true())]", "True"),
    ("[substring('one two three', 4, 3)]", "two"),
    ("[substring('one two three', 4)]", "two three"),
    ("[take('one two three', 2)]", "on"),
    ("[take('one', 20)]", "one"),
    ("[take('one', -1)]", ""),
    ("[toLower('One Two Three')]", "one two three"),
    ("[toUpper('One Two Three')]", "ONE TWO THREE"),
    ("[trim('    one two three   ')]", "one two three"),
    ("[uniqueString('hello', 'world')]", "a7wkljktk6wne"),
    ("[uniqueString('tyeth')]", "zcztcwvu6iyg6"),
    ("[uniqueString('')]", "aaaaaaaaaaaaa"),
    (
        "[uri('http://contoso.org/firstpath/', 'myscript.sh')]",
        "http://contoso.org/firstpath/myscript.sh",
    ),
    (
        "[uri('http://contoso.org/firstpath', 'myscript.sh')]",
        "http://contoso.org/myscript.sh",
    ),
    (
        "[uriComponent('http://contoso.com/resources/nested/azuredeploy.json')]",
        "http%3A%2F%2Fcontoso.com%2Fresources%2Fnested%2Fazuredeploy.json",
    ),
    (
        "[uriComponentToString('http%3A%2F%2Fcontoso.com%2Fazuredeploy.json')]",
        "http://contoso.com/azuredeploy.json",
    ),
]

COLLECTIONS = [
    ("[array(1)]", [1]),
    ("[array('efgh')]", ["efgh"]),
    ("[array(parameters('object'))]", [{"one": "a", "two": "b", "three": "c"}]),
    ("[array(createArray(1))]", [1]),
    ("[coalesce(parameters('nulls').null1, parameters('nulls').null2)]", None),
    ("[coalesce(parameters('nulls').null1, parameters('nulls').string)]", "default"),
    ("[coalesce(parameters('nulls').null1, parameters('nulls').int)]", 1),
    ("[coalesce(parameters('nulls').null1, parameters('nulls').object)]", {"first": "default"}),
    ("[contains(parameters('object'), 'one')]", True),
    ("[contains(parameters('object'), 'ONE')]", True),
    ("[contains(parameters('object'), 'a')]", False),
    ("[contains(parameters('arrayToConvert'), 'three')]", True),
    ("[contains(parameters('arrayToConvert'), 'four')]", False),
    ("[createArray('a', 'b', 'c')]", ["a", "b", "c"]),
    ("[createArray()]", []),
    ("[createArray(parameters('firstArray'))]", [["1-1", "1-2", "1-3"]]),
    ("[createObject('intProp', 1, 'nullProp', null())]", {"intProp": 1, "nullProp": None}),
    ("[createObject()]", {}),
    ("[empty(createArray())]", True),
    ("[empty(createObject())]", True),
    ("[empty(null())]", True),
    ("[first(parameters('arrayToConvert'))]", "one"),
    ("[first(createArray())]", None),
    (
        "[flatten(createArray(createArray('one', 'two'), createArray('three')))]",
        ["one", "two", "three"],
    ),
    ("[indexOf(parameters('arrayToConvert'), 'two')]", 1),
    (
        "[intersection(createArray('one', 'two', 'three'), createArray('two', 'three'))]",
        ["two", "three"],
    ),
    (
        '[intersection(json(\'{"one": "a", "two": "b", "three": "c"}\'), '
        'json(\'{"one": "a", "two": "z", "three": "c"}\'))]',
        {"one": "a", "three": "c"},
    ),
    ("[items(createObject('b', 2, 'a', 1))]", [{"key": "a", "value": 1}, {"key": "b", "value": 2}]),
    ('[json(\'{"a": "b"}\').a]', "b"),
    ("[json('null')]", None),
    ("[last(parameters('arrayToConvert'))]", "three"),
    ("[length(parameters('arrayToConvert'))]", 3),
    ("[length(parameters('object'))]", 3),
    ("[min(parameters('intArray'))]", 0),
    ("[min(0, 3, 2, 5, 4)]", 0),
    ("[max(parameters('intArray'))]", 5),
    ("[max(0, 3, 2, 5, 4)]", 5),
    ("[objectKeys(parameters('firstObject'))]", ["one", "three", "two"]),
    ("[range(5, 3)]", [5, 6, 7]),
    ("[range(5, 0)]", []),
    (
        "[shallowMerge(createArray(createObject('a', 1), createObject('a', 2, 'b', 3)))]",
        {"a": 2, "b": 3},
    ),
    ("[skip(parameters('arrayToConvert'), 2)]", ["three"]),
    ("[take(parameters('arrayToConvert'), 2)]", ["one", "two"]),
    ("[tryGet(parameters('objectArray'), 'three', 'x', 0)]", 1),
    ("[tryGet(parameters('objectArray'), 'four')]", None),
    (
        "[union(parameters('firstObject'), parameters('secondObject'))]",
        {"one": "a", "two": "b", "three": "c2", "four": "d", "five": "e"},
    ),
    (
        "[union(createArray('one', 'two', 'three'), createArray('three', 'four'))]",
        ["one", "two", "three", "four"],
    ),
    (
        "[union(parameters('nested1'), parameters('nested2'))]",
        {"p": {"one": "a", "two": "c"}, "q": [3]},
    ),
]

NUMBERS = [
    ("[add(5, 3)]", 8),
    ("[sub(7, 3)]", 4),
    ("[mul(5, 3)]", 15),
    ("[div(8, 3)]", 2),
    ("[div(-8, 3)]", -2),
    ("[mod(7, 3)]", 1),
    ("[mod(-7, 3)]", -1),
    ("[int('4')]", 4),
    ("[int(4)]", 4),
    ("[float('3.0')]", 3.0),
    ("[float(3)]", 3.0),
]

LOGIC = [
    ("[and(bool('true'), bool('false'))]", False),
    ("[or(bool('true'), bool('false'))]", True),
    ("[not(bool('true'))]", False),
    ("[and(true(), true(), true())]", True),
    ("[or(false(), false())]", False),
    ("[bool('true')]", True),
    ("[bool('FALSE')]", False),
    ("[bool(1)]", True),
    ("[bool(0)]", False),
    ("[equals(1, 2)]", False),
    ("[equals('a', 'a')]", True),
    ("[equals('a', 'A')]", False),
    ("[equals(createArray('a', 'b'), createArray('a', 'b'))]", True),
    ("[equals(createObject('a', 1), createObject('a', 1))]", True),
    ("[equals(1, true())]", False),
    ("[less(1, 2)]", True),
    ("[less('A', 'a')]", True),
    ("[lessOrEquals(2, 2)]", True),
    ("[greater(1, 2)]", False),
    ("[greaterOrEquals(2, 2)]", True),
    ("[if(equals('a', 'a'), 'yes', 'no')]", "yes"),
    ("[if(false(), int('no number'), 'lazy')]", "lazy"),
    ("[if(true(), 'lazy', int('no number'))]", "lazy"),
    ("[or(true(), bool('neither'))]", True),
    ("[and(false(), bool('neither'))]", False),
]

TIMES = [
    ("[dateTimeAdd('2020-04-07 14:53:14Z', 'P3Y')]", "4/7/2023 2:53:14 PM"),
    ("[dateTimeAdd('2020-04-07 14:53:14Z', '-P9D')]", "3/29/2020 2:53:14 PM"),
    ("[dateTimeAdd('2020-04-07 14:53:14Z', 'PT1H')]", "4/7/2020 3:53:14 PM"),
    ("[dateTimeAdd('2020-04-07T14:53:14Z', 'P1D', 'yyyy-MM-dd')]", "2020-04-08"),
    ("[dateTimeAdd('2020-04-07T14:53:14+02:00', 'PT1S', 'u')]", "2020-04-07 12:53:15Z"),
    ("[dateTimeToEpoch('2022-01-01T00:00:00Z')]", 1640995200),
    ("[dateTimeFromEpoch(1640995200)]", "2022-01-01T00:00:00Z"),
]

PLACES = [
    ("[resourceGroup().location]", "local"),
    ("[resourceGroup().tags.team]", "web"),
    ("[subscription().subscriptionId]", "sub-1"),
    ("[deployment().name]", "main"),
    ("[tenant().tenantId]", "tenant-1"),
    ("[environment().name]", "Rollcall"),
    ("[providers('microsoft.network', 'VirtualNetworks').apiVersions[0]]", "2020-06-01"),
    ("[length(providers('Microsoft.Network').resourceTypes)]", 1),
    (
        "[resourceId('Microsoft.Network/virtualNetworks', 'net')]",
        f"{GROUP}/providers/Microsoft.Network/virtualNetworks/net",
    ),
    (  # as the seed's template writes it
        "[resourceId('Microsoft.Network/virtualNetworks/', 'net')]",
        f"{GROUP}/providers/Microsoft.Network/virtualNetworks/net",
    ),
    (
        "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'net', 'sub')]",
        f"{GROUP}/providers/Microsoft.Network/virtualNetworks/net/subnets/sub",
    ),
    (
        "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'net/sub')]",
        f"{GROUP}/providers/Microsoft.Network/virtualNetworks/net/subnets/sub",
    ),
    (
        "[resourceId('other', 'Microsoft.Storage/storageAccounts', 'files')]",
        "/subscriptions/sub-1/resourceGroups/other/providers/Microsoft.Storage/storageAccounts/files",
    ),
    (
        "[resourceId('s-2', 'other', 'Microsoft.Storage/storageAccounts', 'files')]",
        "/subscriptions/s-2/resourceGroups/other/providers/Microsoft.Storage/storageAccounts/files",
    ),
    (
        "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'owner')]",
        "/subscriptions/sub-1/providers/Microsoft.Authorization/roleDefinitions/owner",
    ),
    (
        "[tenantResourceId('Microsoft.Authorization/policyDefinitions', 'p')]",
        "/providers/Microsoft.Authorization/policyDefinitions/p",
    ),
    (
        "[extensionResourceId(resourceGroup().id, 'Microsoft.Authorization/locks', 'l')]",
        f"{GROUP}/providers/Microsoft.Authorization/locks/l",
    ),
]

ALL = [*TEXT, *COLLECTIONS, *NUMBERS, *LOGIC, *TIMES, *PLACES]


@pytest.mark.parametrize(("expression", "expected"), ALL, ids=[each for each, _ in ALL])
def test_the_documentations_examples(expression: str, expected: Any) -> None:
    found = value_of(expression, parameters=PARAMETERS)
    assert same(found, expected), found


@pytest.mark.parametrize(
    "expression", [each.upper() for each, _ in NUMBERS] + ["[CONCAT('a')]", "[ToLoWeR('A')]"]
)
def test_names_of_functions_have_no_case(expression: str) -> None:
    assert value_of(expression.replace("'NO", "'no")) is not None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[concta('a')]", "there is no function 'concta'; did you mean concat?"),
        ("[concat('a', createArray())]", "concat(): its argument 2 must be a string"),
        ("[toLower(1)]", "toLower(): its argument 1 must be a string, and is Integer"),
        ("[toLower()]", "toLower(): it takes 1 arguments, and was given 0"),
        ("[substring('abc', 1, 2, 3)]", "it takes 2 to 3 arguments, and was given 4"),
        ("[substring('abc', 2, 5)]", "it asks for 5 characters from 2, and the text has 3"),
        ("[div(1, 0)]", "its argument 2 must not be 0"),
        ("[mod(1, 0)]", "its argument 2 must not be 0"),
        ("[mul(9223372036854775807, 2)]", "does not fit into 64 bits"),
        ("[int('x')]", "a string of digits, and was given another string"),
        ("[float('nan')]", "a number or a string that is one"),
        ("[bool('maybe')]", "one of the strings 'true' and 'false'"),
        ("[json('{')]", "its argument 1 is not valid JSON"),
        ("[json('NaN')]", "its argument 1 is not valid JSON"),
        ("[base64ToString('*')]", "not the base64 of a text"),
        ("[dataUriToString('x')]", "must be a data URI"),
        ("[format('{1}', 'a')]", "its format names {1}, and there are 1 arguments"),
        ("[format('{', 'a')]", "a brace by itself"),
        ("[format('{0:Q9}', 1)]", "its format asks for 'Q9'"),
        ("[range(1, 10001)]", "from 0 to 10000"),
        ("[padLeft('a', 2000000)]", "from 0 to 1048576"),
        ("[padLeft('a', 5, 'ab')]", "must be one character"),
        ("[replace('a', '', 'b')]", "must not be empty"),
        ("[createObject('a')]", "an even number of arguments"),
        ("[min(createArray())]", "its array must not be empty"),
        ("[less(1, 'a')]", "two numbers or two strings"),
        ("[union(createArray(), createObject())]", "all its arguments must be arrays"),
        ("[if(1, 2, 3)]", "its argument 1 must be a boolean, and is Integer"),
        ("[if(true(), 2)]", "it takes 3 arguments"),
        ("[and()]", "it takes 1 or more arguments"),
        ("[dateTimeAdd('soon', 'P1D')]", "must be a time such as"),
        ("[dateTimeAdd('2020-01-01', 'P')]", "must be an ISO 8601 duration"),
        ("[dateTimeAdd('9999-01-01', 'P9999Y')]", "no time that exists here"),
        ("[dateTimeFromEpoch(9223372036854775807)]", "no time that exists here"),
        ("[copyIndex()]", "there is no loop around it"),
        ("[copyIndex('vms')]", "there is no loop 'vms' around it"),
        ("[resourceId('a', 'b')]", "one argument must be a resource type"),
        ("[resourceId('Microsoft.Network/virtualNetworks', 'a', 'b')]", "it needs 1 names"),
        ("[utcNow()]", "only be used in the default value of a parameter"),
        ("[newGuid()]", "only be used in the default value of a parameter"),
        ("[reference('x')]", "it cannot be used at this location"),
        ("[listKeys('x', '2020-01-01')]", "nothing here has keys to list"),
        ("[parameters('x')]", "the template has no parameter 'x'"),
        ("[variables('x')]", "the template has no variable 'x'"),
        ("[resourceGroup().nothing]", "the property 'nothing' does not exist; there are id"),
        ("[createArray(1)[1]]", "the index 1 is outside the array of 1 items"),
        ("[createArray(1)['a']]", "an array has indexes"),
        ("['a'.b]", "this is String"),
    ],
)
def test_a_mistake_is_named_with_its_function_and_its_expression(
    expression: str, message: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        value_of(expression)
    assert message in caught.value.message
    assert caught.value.expression == expression
    assert caught.value.path == ("value",)
    assert caught.value.code == "InvalidTemplate"


def test_time_and_new_ids_are_asked_once_in_defaults() -> None:
    sections: dict[str, Any] = {
        "parameters": {
            "now": {"type": "string", "defaultValue": "[utcNow()]"},
            "day": {"type": "string", "defaultValue": "[utcNow('yyyy-MM-dd')]"},
            "one": {"type": "string", "defaultValue": "[newGuid()]"},
            "two": {"type": "string", "defaultValue": "[newGuid()]"},
        }
    }
    assert value_of("[parameters('now')]", **sections) == "20200407T145314Z"
    assert value_of("[parameters('day')]", **sections) == "2020-04-07"
    one = value_of("[parameters('one')]", **sections)
    assert len(one) == 36
    assert one != value_of("[parameters('two')]", **sections)
    assert one == value_of("[parameters('one')]", **sections)


def test_the_templates_own_functions() -> None:
    functions = [
        {
            "namespace": "contoso",
            "members": {
                "uniqueName": {
                    "parameters": [{"name": "namePrefix", "type": "string"}],
                    "output": {
                        "type": "string",
                        "value": "[concat(toLower(parameters('namePrefix')), '!')]",
                    },
                },
                "bad": {"output": {"type": "string", "value": "[variables('v')]"}},
            },
        }
    ]
    found = value_of("[contoso.uniqueName('ABC')]", functions=functions, variables={"v": 1})
    assert found == "abc!"
    for expression, message in (
        ("[contoso.uniqueName()]", "takes 1 arguments, and was given 0"),
        ("[contoso.bad()]", "has no variables"),
        ("[contoso.uniquName('a')]", "did you mean contoso.uniqueName?"),
    ):
        with pytest.raises(TemplateError) as caught:
            value_of(expression, functions=functions, variables={"v": 1})
        assert message in caught.value.message


def test_values_are_json() -> None:
    for expression, _ in ALL:
        json.dumps(value_of(expression, parameters=PARAMETERS))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[json('1e999')]", "out of range"),
        ("[json('{\"a\": [-1e999]}')]", "out of range"),
        ("[base64ToJson(base64('1e999'))]", "out of range"),
        ("[json('\"\\ud800\"')]", "half a surrogate pair"),
        ("[json('{\"\\ud800\": 1}')]", "half a surrogate pair"),
        ("[json('[\"\\u0000\"]')]", "the character NUL"),
        ("[uriComponentToString('%00')]", "the character NUL"),
        ("[base64ToString('AA==')]", "the character NUL"),
        ("[dataUriToString('data:,%00')]", "the character NUL"),
        ("[dataUriToString('data:;base64,AA==')]", "the character NUL"),
        ("[format('{0:N2}', json('1%s'))]" % ("0" * 400), "cannot be made of these arguments"),
        ("[float(json('1%s'))]" % ("0" * 400), "cannot be made of these arguments"),
        ("[int(json('1e300'))]", "does not fit into 64 bits"),
    ],
)
def test_what_cannot_be_kept_or_sent_on_is_never_made(expression: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        value_of(expression)
    assert message in caught.value.message
