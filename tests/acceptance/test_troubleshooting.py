"""docs/troubleshooting.md says what the programs say: its messages and events are the source's."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DOCUMENT = (TOP / "docs" / "troubleshooting.md").read_text("utf-8")
PACKAGES = ("computehub", "gridcore", "gridnode")

HOLE = "\0"
"""Stands in a template for what the program puts in."""

LITERAL_LETTERS = 7
"""A template with fewer letters of its own, as f"{a}: {b}", would explain anything."""

WORDS_TO_EXPLAIN = 3
"""So many words in a hole are a sentence, and no value: some other template has to explain them."""

FOREIGN = {
    "Address already in use": "the system",
    "All connection attempts failed": "httpx",
    "Bad file format reading the append only file": "Redis' log",
    "Cannot assign requested address": "the system",
    "Connection refused": "the system",
    "Error 111 connecting to": "redis-py",
    "Error while fetching server API version": "the Docker SDK",
    "Expected newline or end of document after a statement": "tomllib",
    "Expecting property name enclosed in double quotes": "json",
    "Failed listening on port 6390 (TCP), aborting.": "Redis' log",
    "Install paramiko package to enable ssh:// support": "the Docker SDK",
    "Invalid bind address format": "the Docker SDK",
    "Name or service not known": "the system",
    "No such file or directory": "the system",
    "Permission denied": "the system",
    "String should have at least 8 characters": "pydantic",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "Redis",
    "[SSL: WRONG_VERSION_NUMBER] wrong version number": "OpenSSL",
    "dial tcp 192.168.1.9:5000: connect: connection refused": "Docker",
    "dial tcp: lookup registry.lan on 192.168.1.1:53: no such host": "Docker",
    "invalid username-password pair or user is disabled.": "Redis",
    "manifest for registry.lan/primes:2 not found: manifest unknown: manifest unknown": "Docker",
    "no basic auth credentials": "Docker",
}
"""What other programs say and ours pass on, and whose it is."""

LOG_LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR) +[\w.]+ (\w+)((?: \w+=(?:[^\s\"]+|\".*\"))*)")
DOCTOR_LINE = re.compile(r"[a-z_]+ +(?:problem|warning): (.+)| +To mend it: (.+)")
FIELD_LINE = re.compile(r"\"(?:error|message|waiting_for)\": (\".+\")")
COMMAND_LINE = re.compile(r"(?:computehub|gridnode|gridcore): (.+)")

EVENT_LEVELS = ("debug", "info", "warning", "error")


def sources() -> Iterator[ast.Module]:
    for package in PACKAGES:
        for path in sorted((TOP / package).rglob("*.py")):
            yield ast.parse(path.read_text("utf-8"))


def alternatives(expression: ast.expr) -> list[str]:
    """The texts that an expression can give, each with holes for what is not known here."""
    match expression:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return ["".join(texts) for texts in product(alternatives(left), alternatives(right))]
        case ast.FormattedValue(value=value):
            return alternatives(value)
        case ast.IfExp(body=body, orelse=other):
            return alternatives(body) + alternatives(other)
        case ast.JoinedStr(values=parts):
            return ["".join(texts) for texts in product(*map(alternatives, parts))]
        case _:
            return [HOLE]


def said_by_an_error(call: ast.Call) -> list[str]:
    """GridCoreError's sentence, and what the doctor shows of it."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if not call.args or not {"cause", "next_step"} <= named.keys():
        return []
    parts = map(alternatives, (call.args[0], named["cause"], named["next_step"]))
    return [
        text
        for tried, cause, next_step in product(*parts)
        for text in (f"{tried}: {cause}. {next_step}", f"{tried}: {cause}")
    ]


def templates() -> Iterator[str]:
    for module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                yield from said_by_an_error(node)
            elif isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                yield from alternatives(node)


def as_pattern(template: str) -> re.Pattern[str]:
    return re.compile("(.*?)".join(map(re.escape, template.split(HOLE))), re.DOTALL)


PATTERNS = [
    as_pattern(template)
    for template in sorted(set(templates()))
    if sum(map(str.isalpha, template)) >= LITERAL_LETTERS
]


def is_value(text: str) -> bool:
    for foreign in FOREIGN:
        text = text.replace(foreign, "")
    words = [word for word in text.split() if re.search("[a-z]{3}", word) and "/" not in word]
    return len(words) < WORDS_TO_EXPLAIN


def is_said(text: str) -> bool:
    """Some template gives this text, with values or other such texts in its holes."""
    if match := COMMAND_LINE.fullmatch(text):
        text = match[1]
    return text in FOREIGN or any(
        all(is_value(hole) or is_said(hole) for hole in match.groups())
        for match in (pattern.fullmatch(text) for pattern in PATTERNS)
        if match
    )


def quoted() -> list[str]:
    blocks = re.findall(r"^```error\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def sentences(line: str) -> Iterator[str]:
    """What a program says in a line, without what surrounds it."""
    if line.startswith("{"):
        # Of a refused body: the field first.
        yield re.sub(r"^\w+: ", "", json.loads(line)["detail"])
    elif match := LOG_LINE.fullmatch(line):
        for text in re.findall(r'\w+="((?:[^"\\]|\\.)*)"', match[3]):
            yield text.replace('\\"', '"')
    elif match := DOCTOR_LINE.fullmatch(line):
        yield match[1] or match[2]
    elif match := FIELD_LINE.fullmatch(line):
        yield json.loads(match[1])
    else:
        yield line


def logged_events() -> dict[str, str]:
    """Event -> level, of every call of a log in the source."""
    found: dict[str, str] = {}
    for module in sources():
        for node in ast.walk(module):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[event, *_]
                ) if level in EVENT_LEVELS:
                    found |= dict.fromkeys(alternatives(event), level.upper())
    return found


def documented_events() -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| \S.* \|$", DOCUMENT, re.MULTILINE))


@pytest.mark.parametrize("line", quoted())
def test_each_quoted_message_is_one_that_the_programs_can_say(line: str) -> None:
    assert [text for text in sentences(line) if not is_said(text)] == []


@pytest.mark.parametrize("line", [line for line in quoted() if LOG_LINE.fullmatch(line)])
def test_each_quoted_log_line_has_an_event_of_that_level(line: str) -> None:
    match = LOG_LINE.fullmatch(line)
    assert match
    assert logged_events().get(match[2]) == match[1]


def test_the_table_of_events_lists_exactly_those_in_the_source_with_their_levels() -> None:
    assert documented_events() == logged_events()


def test_a_message_that_was_changed_in_the_source_would_be_found() -> None:
    true = "finishing the running task: no task runs. Submit one with POST /api/tasks: it starts at"
    assert is_said(f"{true} once")
    assert not is_said(f"{true} midnight")
    # Also where the changed words stand in a hole of a true sentence.
    reading = "reading gridnode.toml, line 2, key 'token': found a value not shown here"
    assert is_said(
        f"{reading}: it holds a blank or a sign that cannot be sent: copy it again. Change that"
        " line and start again"
    )
    assert not is_said(
        f"{reading}: use letters of any kind that you like. Change that line and start again"
    )


def test_what_is_said_to_come_from_other_programs_is_quoted() -> None:
    assert [text for text in FOREIGN if text not in DOCUMENT] == []


def test_each_link_within_the_document_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= anchors
