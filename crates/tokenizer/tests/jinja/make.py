"""Writes cases.json: small templates, what they are given, and what Python's Jinja makes of them, set up as `transformers` does.

Needs jinja2: python3 make.py
"""

import json
import pathlib

from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

PLAIN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve? 100 % of \"it\"\n"}]
PARTS = [{"role": "user", "content": "a-b-c"}, {"role": "assistant", "content": "  x y  z "}, {"role": "user", "content": ""}]
CALL = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {"b": [1, 2.5, None], "a": {"é": "😀", "c": []}}}}
CALLS = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "7"}]
SHAPES = {"plain": PLAIN, "parts": PARTS, "calls": CALLS}
EACH = "{%% for m in messages %%}[{{ %s }}]{%% endfor %%}"

STRINGS = [
    "m.content.removeprefix('Be')", "m.content.removesuffix('.')", "m.content.removesuffix('')",
    "m.content.rsplit()", "m.content.rsplit('-')", "m.content.rsplit('-', 1)", "m.content.rsplit(None, 1)",
    "m.content.rsplit('-', -1)", "m.content.partition('-')[0]", "m.content.partition('-')[2]", "m.content.rpartition('-')[2]",
    "m.content.rpartition('?')[0]", "m.content.partition(' ') | join('/')", "m.content.zfill(8)", "'-5'.zfill(4)",
    "m.role.ljust(10)", "m.role.rjust(10, '.')", "m.role.center(9, '*')", "m.role.center(10, '*')", "m.content.swapcase()",
    "m.role.index('s')", "m.role.rindex('s')", "m.content.split('-', 1)", "m.content.strip().title()", "m.content.splitlines()",
]
PERCENTS = [
    "'%s: %s' % (m.role, m.content)", "'<%s>' % m.role", "'%d %%' % 5", "'%5.2f|%-6s|' % (3.14159, m.role)", "'%s' % m.role | upper",
    "'%s' % m.content.strip() ~ '!'", "('%s' % m.role) | length", "'%03d' % (m.role | length)", "\"%s\" % m['role']", "7 % 4",
    "'%x' % 255", "'a' ~ '%s' % ('b',)",
]
JSONS = [
    "m | tojson", "m | tojson(indent=2)", "m | tojson(ensure_ascii=true)", "m | tojson(ensure_ascii=False)",
    "m | tojson(separators=(',', ':'))", "m | tojson(sort_keys=true)", "m | tojson(indent=1, separators=(',', ' : '), sort_keys=True)",
    "m.content | tojson", "[] | tojson(indent=2)", "{} | tojson(indent=2)", "[1, [2, {'a': none}]] | tojson(indent=0)",
    "'\\x7f\\u2028<&>' | tojson(ensure_ascii=true)", "'<&>\\'' | tojson", "1.0 | tojson", "true | tojson",
]
OTHERS = [
    "raise_exception is callable", "strftime_now is callable", "m is callable", "m.role is callable", "nothing is callable",
    "m.items() | list | length", "m.get('role', 'x')", "m.get('no', 'x')", "m.keys() | list | first", "m.content is string",
    "m.tool_calls is defined", "m.content[::-1]", "m.content[:3]", "m.content | trim | length", "loop.index0 % 2 == 0",
    "strftime_now('%Y-%m-%d') | length", "'x' in m.content", "m.role in ['user', 'tool']", "m.content or 'none'",
]
WHOLE = [
    "{% macro show(x) %}<{{ x }}>{% endmacro %}{{ show is callable }}{{ show('a') }}",
    "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = '%s|%s' % (ns.text, m.role) %}{% endfor %}{{ ns.text }}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ '%s\n' % m.role }}{% endfor %}",
    "{% for m in messages if '%s' % m.role != 'user' %}{{ m.role.ljust(12, '.') }}{% endfor %}",
    "{%- for m in messages -%}\n{{- '<|' ~ m.role ~ '|>' -}}{% endfor %}",
]


def dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def fail(message):
    raise ValueError(message)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension])
    environment.filters["tojson"] = dumps
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda pattern: __import__("datetime").datetime.now().strftime(pattern)
    templates = [EACH % part for part in STRINGS + PERCENTS + JSONS + OTHERS] + WHOLE
    cases = []
    for template in templates:
        expect = {}
        for shape, messages in SHAPES.items():
            try:
                expect[shape] = environment.from_string(template).render(messages=messages)
            except Exception:
                expect[shape] = None
        cases.append({"template": template, "expect": expect})
    folder = pathlib.Path(__file__).parent
    text = json.dumps({"shapes": SHAPES, "cases": cases}, indent=1, ensure_ascii=False)
    (folder / "cases.json").write_text(text + "\n")


main()
