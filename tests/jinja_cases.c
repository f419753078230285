/*
 * Snippets of Jinja and what they give, see jinja_cases.h.
 */
#include "tests/jinja_cases.h"

#include <stddef.h>

const char jinja_input[] = "{\"messages\": [{\"role\": \"system\", \"content\": \" be "
                           "nice\\n\"}, {\"role\": \"user\", \"content\": \""
                           "hi <b> \\\"q\\\" 'x'\"}, {\"role\": \"assistant\", \"content\": "
                           "\"A<|end|>\", \"tool_calls\": [{\"functi"
                           "on\": {\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": [1, "
                           "2.5, null, true], \"ü\": \"é\\n\\t\"}}}]}], "
                           "\"tools\": [{\"name\": \"zeta\", \"n\": 3, \"p\": {\"type\": "
                           "\"object\"}}, {\"name\": \"Alpha\", \"n\": 1}, "
                           "{\"name\": \"beta\", \"n\": 2}], \"add_generation_prompt\": "
                           "true, \"n\": -7, \"x\": 2.5, \"big\": 1e+2"
                           "0, \"small\": 1e-07, \"empty\": [], \"e\": {}, \"d\": {\"b\": 1, "
                           "\"a\": \"x\", \"C\": null}, \"s\": \"Straß"
                           "e ÀÉ don't STOP hello-world\", \"nested\": [[1, 2], [3, 4]], "
                           "\"words\": [\"b\", \"A\", \"c\", \"a\", "
                           "\"B\"], \"ml\": \"l1\\n\\nl2\\r\\nl3\", \"uni\": "
                           "\"日本語テキスト\", \"num\": \"42\", \"flt\": \"3.75\"}";

const struct jinja_sample jinja_statements[] = {
    {"{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 "
     "}}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% "
     "endfor %}",
     "1032TrueFalse310;2121FalseFalse310;3210FalseTrue310;"},
    {"{% for m in messages %}{{ loop.previtem is defined }}-{{ m.role }}-{{ loop.nextitem.role if "
     "loop.nextitem is defined else 'end' }};{% endfor %}",
     "False-system-user;True-user-assistant;True-assistant-end;"},
    {"{% for m in messages %}{{ loop.cycle('a','b') }}{{ loop.changed(m.role) }}{% endfor %}",
     "aTruebTrueaTrue"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% "
     "for v in d.values() %}{{ v }}{% endfor %}",
     "b=1;a=x;C=None;baC1xNone"},
    {"{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}{{ d|dictsort(true) }}{{ "
     "{'a':2,'b':1}|dictsort(by='value') }}{{ d|dictsort(reverse=true) }}",
     "a=x;b=1;C=None;[('C', None), ('a', 'x'), ('b', 1)][('b', 1), ('a', 2)][('C', None), ('b', "
     "1), ('a', 'x')]"},
    {"{% for x in [1,2,3,4] if x % 2 == 0 %}{{ x }}/{{ loop.length }}{% else %}none{% endfor %}",
     "2/24/2"},
    {"{% for x in [] %}{{ x }}{% else %}none{% endfor %}", "none"},
    {"{% for x in [1,2,3,4,5] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break "
     "%}{% endif %}{{ x }}{% endfor %}",
     "13"},
    {"{% for a, b in nested %}{{ a }}{{ b }}{% endfor %}{% for (a, b) in nested %}{{ a }}{% endfor "
     "%}",
     "123413"},
    {"{% for x in undefinedvar %}{% else %}empty{% endfor %}", "empty"},
    {"{% for c in 'añb' %}[{{ c }}]{% endfor %}", "[a][ñ][b]"},
    {"{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "231"},
    {"{% set ns = namespace(x=1, y='a') %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor "
     "%}{{ ns.x }}{{ ns.y }}{{ ns.z }}|{{ ns['x'] }}",
     "4a|4"},
    {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}", "12(1, 2)"},
    {"{% set x %}block {{ 1 }}{% endset %}{{ x|upper }}{% set y | trim | upper %}  bb {% endset "
     "%}[{{ y }}]",
     "BLOCK 1[BB]"},
    {"{% macro f(a, b=2, c='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, c=3) }}|{{ "
     "f(1,2,3) }}|{{ f() }}|{{ f(b=5, a=4) }}",
     "12z|123|123|2z|45z"},
    {"{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1,2,3,k=4) }}",
     "1(2, 3){'k': 4}"},
    {"{% macro f(a) %}<{{ caller(a) }}>{% endmacro %}{% call(x) f(7) %}in {{ x }}{% endcall %}",
     "<in 7>"},
    {"{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}", "<in>"},
    {"{% macro fact(n) %}{{ n if n <= 1 else n * (fact(n - 1)|int) }}{% endmacro %}{{ fact(5) }}",
     "120"},
    {"{% macro f(a) %}{% set y = a %}{{ y }}{{ z }}{% endmacro %}{% set z = 3 %}{{ f(1) }}{{ y }}",
     "13"},
    {"{% macro f(x, y=x) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}", "11"},
    {"{% filter upper %}abc {{ 'd' }}{% endfilter %}{% filter replace('a','b')|upper %}aaa{% "
     "endfilter %}",
     "ABC DBBB"},
    {"{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "12"},
    {"{% raw %}{{ x }} {% if %}{% endraw %}!", "{{ x }} {% if %}!"},
    {"{%- raw -%}  {{ x }}  {%- endraw -%}  !", "{{ x }}!"},
    {"{% generation %}gen {{ 1 }}{% endgeneration %}", "gen 1"},
    {"a {#- comment -#}\n b", "ab"},
    {"  {# comment #}\nb", "b"},
    {"x  {%- if true -%}  \n y \n {%- endif %}\nz", "xyz"},
    {"  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"},
    {"  {%+ if true %}a{% endif +%}\nb", "  a\nb"},
    {"x {% if true %} a {% endif %} b", "x  a  b"},
    {"a\n  {% set x = 1 %}  \nb {{ x }}\n\n", "a\n  \nb 1\n"},
    {"  {{ 1 }}\n  {%- if true %} z{% endif %}\n", "  1 z"},
    {"{% if false %}a{% elif none %}b{% elif 1 %}c{% else %}d{% endif %}", "c"},
    {"{% if x is defined and x is not none and x is number %}y{% endif %}", "y"},
    {"{{ tools|groupby('n')|list }} {% for g, l in tools|groupby('p.type', default='none') %}{{ g "
     "}}:{{ l|length }};{% endfor %}",
     "[(1, [{'name': 'Alpha', 'n': 1}]), (2, [{'name': 'beta', 'n': 2}]), (3, [{'name': 'zeta', "
     "'n': 3, 'p': {'type': 'object'}}])] none:2;object:1;"},
    {"{% for g in tools|groupby('n') %}{{ g.grouper }}{{ g.list|length }}{{ g['list'][0].name }}{{ "
     "g[0] }};{% endfor %}{{ (1, 2).list is defined }}",
     "11Alpha1;21beta2;31zeta3;False"},
    {"{% set g = [1,2,3]|map('string') %}{{ g|list }}{{ g|list }}", "['1', '2', '3'][]"},
    {"{% set g = [1,2,3]|map('string') %}{{ g|first }}{{ g|list }}", "1['2', '3']"},
    {"{{ range(3)|length }} {% for i in range(2) %}{{ i }}{% endfor %}", "3 01"},
    {"{% if false %}{{ 'x' | foo }}{% endif %}ok", "ok"},
    {"{% if false %}{{ 'a' is foo }}{% endif %}ok", "ok"},
    {"{% set x = [] %}{% set x = x + [1] %}{% set x = x + [2] %}{{ x }}", "[1, 2]"},
    {"{% for i in range(3) %}{% for j in range(2) %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ "
     "loop.index }};{% endfor %}",
     "11211;11212;11213;"},
    {"{% for i in range(3) %}{% set outer = loop %}{% for j in range(2) %}{{ outer.index }}{{ "
     "loop.index }} {% endfor %}{% endfor %}",
     "11 12 21 22 31 32 "},
    {"{% set ns = namespace() %}{% set ns.a = [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}{{ ns.b "
     "is defined }}",
     "[1, 2]False"},
    {"{% macro m() %}{% for i in [1,2] %}{{ i }}{% if i == 1 %}{% continue %}{% endif %}x{% endfor "
     "%}{% endmacro %}{{ m() }}",
     "12x"},
    {"{%- macro a(x) -%} [{{ x }}] {%- endmacro -%}{{ a('y') ~ a('z') }}|{{ a('q')|trim }}|{{ "
     "a(1)|length }}",
     "[y][z]|[q]|3"},
    {"{% set content = messages[1].content %}{% if '\"q\"' in content %}{{ content.split('\"')[1] "
     "}}{% endif %}",
     "q"},
    {NULL, NULL},
};

const struct jinja_sample jinja_expressions[] = {
    {"plain } % # { text", "plain } % # { text"},
    {"{{ 'a' + \"b\" + 'c' }}{{ 'x' 'y' \"z\" }}", "abcxyz"},
    {"{{ 'it\\'s \\\"\\\\ \\n\\t|\\x41\\u00e9\\101\\q' }}", "it's \"\\ \n\t|AéA\\q"},
    {"{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} "
     "{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7 / 2 }} {{ 6 / 2 }}",
     "6 -4 2 -2 1024 0.5 64 4 3.5 3.0"},
    {"{{ 1.5 + 1 }} {{ 1e3 }} {{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789012345680.0 }} {{ "
     "1e-5 }} {{ 0.0001 }} {{ 1e100 }} {{ -0.0 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }}",
     "2.5 1000.0 1.0 0.30000000000000004 1e+16 1.2345678901234568e+17 1e-05 0.0001 1e+100 -0.0 "
     "1000 31 3 15"},
    {"{{ n }} {{ x }} {{ big }} {{ small }} {{ n // 2 }} {{ n % 4 }} {{ x // 1 }} {{ x % 1 }}",
     "-7 2.5 1e+20 1e-07 -4 1 2.0 0.5"},
    {"{{ none }} {{ true }} {{ False }} {{ None }}", "None True False None"},
    {"{{ [1, 'a', \"it's\", 'q\"q', 'b\\'\"', none, true, 1.0, [2], {'k': 'v'}, (1,), (1, 2), ()] "
     "}}",
     "[1, 'a', \"it's\", 'q\"q', 'b\\'\"', None, True, 1.0, [2], {'k': 'v'}, (1,), (1, 2), ()]"},
    {"{{ d }} {{ e }} {{ empty }} {{ nested }}",
     "{'b': 1, 'a': 'x', 'C': None} {} [] [[1, 2], [3, 4]]"},
    {"{{ 'a\\nb\\t\\\\é\\x07\\u200b' }} {{ ['a\\nb\\t\\\\é\\x07\\u200b'] }}",
     "a\nb\t\\é\007\342\200\213 ['a\\nb\\t\\\\é\\x07\\u200b']"},
    {"{{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ none == false }} {{ [1] == [1.0] }} {{ (1,) "
     "== [1] }} {{ {'a':1} == {'a':1} }}",
     "True True False False True False True"},
    {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }} {{ 1 == 1 == 1 }}",
     "True False True True True"},
    {"{{ 'a' in 'abc' }} {{ 1 in [1,2] }} {{ 'a' in d }} {{ 'z' not in d }} {{ 'a' not in ['b'] }}",
     "True True True True True"},
    {"{{ not 1 == 2 }} {{ not true and false }} {{ 1 or 2 }} {{ 0 or '' or 'x' }} {{ 1 and 2 and 3 "
     "}} {{ '' and 2 }}",
     "True False 1 x 3 "},
    {"{{ 'a' if true else 'b' }} {{ 'a' if false }} {{ 'a' if false else 'b' if false else 'c' }}",
     "a  c"},
    {"{{ undefinedvar }}|{{ undefinedvar is defined }}|{{ messages[0].foo }}|{{ messages[9] }}|{{ "
     "'x' ~ nope ~ 1 ~ none }}",
     "|False|||x1None"},
    {"{{ [1] + [2] }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 'a' * -1 }}|",
     "[1, 2] ababab ababab [1, 1] |"},
    {"{{ (1,2) + (3,) }}", "(1, 2, 3)"},
    {"{{ messages[-1].content }} {{ messages[0]['role'] }} {{ messages[0].role[0] }} {{ uni[1] }} "
     "{{ uni[-1] }} {{ uni[9] }}|",
     "A<|end|> system s 本 ト |"},
    {"{{ uni[1:3] }} {{ uni[::-1] }} {{ uni[:-2] }} {{ uni[::2] }} {{ [1,2,3,4,5][1:4:2] }} {{ "
     "[1,2,3][::-1] }} {{ [1,2,3][-2:] }} {{ [1,2,3][5:] }} {{ [1,2,3][:100] }} {{ [1,2,3][3:0:-1] "
     "}} {{ (1,2,3)[1:] }} {{ 'abc'[-100:100] }} {{ [1,2,3][2:0] }} {{ [1,2,3,4][-1:0:-2] }}",
     "本語 トスキテ語本日 日本語テキ 日語キト [2, 4] [3, 2, 1] [2, 3] [] [1, 2, 3] [3, 2] (2, 3) "
     "abc [] [4, 2]"},
    {" {{- 'a' -}} \n b", "ab"},
    {"{{ 'a' }}\nb", "a\nb"},
    {"{{ messages.append is defined }}", "False"},
    {"{{ dict(a=1, b=2) }} {{ dict({'x':1}, y=2) }} {{ dict() }}",
     "{'a': 1, 'b': 2} {'x': 1, 'y': 2} {}"},
    {"{{ strftime_now('%d %b %Y %A %B %H:%M:%S %j %y %p %I %m %%') }}",
     "02 Jan 2026 Friday January 03:04:05 002 26 AM 03 01 %"},
    {"{{ 1 is divisibleby 1 }} {{ 6 is divisibleby(3) }} {{ 1 is odd }} {{ 2 is even }} {{ 'a' is "
     "string }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is integer }} "
     "{{ true is number }} {{ 1 is sameas 1 }} {{ 1 is sameas true }} {{ 'a' is in 'abc' }} {{ 1 "
     "is in [1] }} {{ 5 is eq 5 }} {{ 5 is ge(4) }} {{ 'a' is lower }} {{ 'A' is upper }} {{ true "
     "is true }} {{ 1 is true }} {{ false is false }}",
     "True True True True True True True True False True True False True True True True True True "
     "True False True"},
    {"{{ 1 is not none }} {{ x is not defined }} {{ none is none }} {{ not x is defined }} {{ "
     "'upper' is filter }} {{ 'odd' is test }} {{ 'zzz' is filter }} {{ namespace is callable }} "
     "{{ 'a' is callable }}",
     "True False True False True True False True False"},
    {"{{ 'a' is sequence and 'b' }} {{ x is number or y }} {{ 'yes' if x is number else 'no' }}",
     "b True yes"},
    {"{{ {'a': {}} }}{{ {'a': {'b': {}}}}}", "{'a': {}}{'a': {'b': {}}}"},
    {"{{ loop }}", ""},
    {"{{ 1.foo }}", ""},
    {"{{ messages.0.role }} {{ nested.1.0 }}", "system 3"},
    {"{{ 1, 2 }}", "(1, 2)"},
    {"{{ 10 // 3 }} {{ 10.0 // 3 }} {{ -10 // 3 }} {{ 10 % 3.5 }}", "3 3.0 -4 3.0"},
    {"{{ true + 1 }} {{ true ~ 1 }} {{ none ~ '' }} {{ -true }} {{ +1 }} {{ - 1 }} {{ not none }}",
     "2 True1 None -1 1 -1 True"},
    {"{{ 9223372036854775807 }} {{ 1.7976931348623157e308 }} {{ 5e-324 }} {{ 100000.0 * 10 }} {{ "
     "1e15 }} {{ 9007199254740993.0 }} {{ 3.0e0 }}",
     "9223372036854775807 1.7976931348623157e+308 5e-324 1000000.0 1000000000000000.0 "
     "9007199254740992.0 3.0"},
    {NULL, NULL},
};

const struct jinja_sample jinja_filters[] = {
    {"{{ d.keys()|list }} {{ d.values()|list }} {{ d.items()|list }} {{ d|list }} {{ d|length }} "
     "{{ d|items|list }}",
     "['b', 'a', 'C'] [1, 'x', None] [('b', 1), ('a', 'x'), ('C', None)] ['b', 'a', 'C'] 3 [('b', "
     "1), ('a', 'x'), ('C', None)]"},
    {"{{ 'aXbX'.replace('X','yy') }} {{ 'aXbX'.replace('X','y',1) }} {{ 'ab'.replace('','-') }} {{ "
     "'aaa'|replace('a','b',2) }} {{ 5|replace(5, 6) }}",
     "ayybyy aybX -a-b- bba 6"},
    {"{{ s|upper }} {{ s|lower }} {{ s|title }} {{ s|capitalize }} {{ s.title() }} {{ s.swapcase() "
     "}}",
     "STRASSE ÀÉ DON'T STOP HELLO-WORLD straße àé don't stop hello-world Straße Àé Don't Stop "
     "Hello-World Straße àé don't stop hello-world Straße Àé Don'T Stop Hello-World sTRASSE àé "
     "DON'T stop HELLO-WORLD"},
    {"{{ ', '.join(words) }} {{ words|join(', ') }} {{ [1,none,'a']|join('-') }} {{ "
     "tools|join(',', attribute='name') }} {{ 'abc'|join('.') }}",
     "b, A, c, a, B b, A, c, a, B 1-None-a zeta,Alpha,beta a.b.c"},
    {"{{ '{} {x} {{}}'.format(1, x=2) }} {{ '{0}{1}{0}'.format('a','b') }} {{ '%s-%d%%' % ('a', 3) "
     "}} {{ '%s' % 'x' }} {{ '%s %s'|format('a', 1) }}",
     "1 2 {} aba a-3% x a 1"},
    {"{{ ml|indent }} {{ ml|indent(2, true) }} {{ ml|indent(2, blank=true) }} {{ ml|indent('> ', "
     "first=true) }} {{ ''|indent(2,true) }}|",
     "l1\n\n    l2\n    l3   l1\n\n  l2\n  l3 l1\n  \n  l2\n  l3 > l1\n\n> l2\n> l3   |"},
    {"{{ '  x '|trim }}|{{ 'xax'|trim('x') }}|{{ 5|trim }}|{{ none|trim }}|{{ undefinedvar|trim "
     "}}|",
     "x|a|5|None||"},
    {"{{ [1,2,3]|length }} {{ uni|length }} {{ uni|count }} {{ undefinedvar|length }}", "3 7 7 0"},
    {"{{ words|sort }} {{ words|sort(reverse=true) }} {{ words|sort(case_sensitive=true) }} {{ "
     "tools|sort(attribute='n')|map(attribute='name')|list }} {{ "
     "tools|sort(attribute='name')|map(attribute='n')|join }} {{ [3,1,2]|sort }}",
     "['A', 'a', 'b', 'B', 'c'] ['c', 'b', 'B', 'A', 'a'] ['A', 'B', 'a', 'b', 'c'] ['Alpha', "
     "'beta', 'zeta'] 123 [1, 2, 3]"},
    {"{{ words|unique|list }} {{ words|unique(true)|list }} {{ [1,2,1,1.0,true]|unique|list }}",
     "['b', 'A', 'c'] ['b', 'A', 'c', 'a', 'B'] [1, 2]"},
    {"{{ [3,1,2]|min }} {{ [3,1,2]|max }} {{ words|min }} {{ words|max }} {{ empty|min }}| {{ "
     "tools|max(attribute='n') }}",
     "1 3 A c | {'name': 'zeta', 'n': 3, 'p': {'type': 'object'}}"},
    {"{{ [1,2,3]|first }} {{ [1,2,3]|last }} {{ empty|first }}| {{ 'abc'|first }} {{ 'abc'|last }} "
     "{{ d|first }}",
     "1 3 | a c b"},
    {"{{ [1,2,3]|sum }} {{ tools|sum(attribute='n') }} {{ [1.5,2]|sum(start=1) }}", "6 6 4.5"},
    {"{{ nested|sum(start=[]) }}{{ [[1],[2],[3]]|sum(start=[0]) }}", "[1, 2, 3, 4][0, 1, 2, 3]"},
    {"{{ [1,2,3]|reverse|list }} {{ 'abc'|reverse }} {{ [1,2,3,4,5]|batch(2)|list }} {{ "
     "[1,2,3,4,5]|batch(2,'x')|list }} {{ [1,2,3,4,5]|slice(2)|list }} {{ "
     "[1,2,3,4,5]|slice(3,'x')|list }}",
     "[3, 2, 1] cba [[1, 2], [3, 4], [5]] [[1, 2], [3, 4], [5, 'x']] [[1, 2, 3], [4, 5]] [[1, 2], "
     "[3, 4], [5, 'x']]"},
    {"{{ words|map('upper')|list }} {{ words|map('replace','a','z')|list }} {{ "
     "tools|map(attribute='p.type', default='-')|list }} {{ nested|map(attribute=0)|list }} {{ "
     "nested|map('first')|list }} {{ nested|map('length')|sum }}",
     "['B', 'A', 'C', 'A', 'B'] ['b', 'A', 'c', 'z', 'B'] ['object', '-', '-'] [1, 3] [1, 3] 4"},
    {"{{ [1,2,3]|select('odd')|list }} {{ [1,2,3]|select('greaterthan', 1)|list }} {{ "
     "[0,1,'']|select|list }} {{ [1,2,3]|reject('odd')|list }} {{ [0,1]|reject|list }} {{ "
     "[1,none,2]|select('none')|list }} {{ [1,'a']|select('string')|list }} {{ "
     "['a','b']|select('in', ['a'])|list }}",
     "[1, 3] [2, 3] [1] [2] [0] [None] ['a'] ['a']"},
    {"{{ tools|selectattr('p')|map(attribute='name')|list }} {{ "
     "tools|selectattr('n','gt',1)|map(attribute='name')|list }} {{ "
     "tools|rejectattr('p','defined')|map(attribute='name')|list }} {{ "
     "tools|selectattr('name','equalto','beta')|list }}",
     "['zeta'] ['zeta', 'beta'] ['Alpha', 'beta'] [{'name': 'beta', 'n': 2}]"},
    {"{{ none|selectattr('x')|list }} {{ none|map('upper')|list }}", "[] []"},
    {"{{ [1,2]|map('upper') is iterable }} {{ [1,2]|map('upper') is sequence }} {{ d.items() is "
     "iterable }} {{ d.items() is sequence }} {{ 'a' is sequence }} {{ d is sequence }} {{ d is "
     "mapping }} {{ undefinedvar is iterable }} {{ 5 is iterable }} {{ none is iterable }}",
     "True False True False True True True True False False"},
    {"{{ undefinedvar|default('x') }} {{ none|default('x') }} {{ ''|default('x', true) }} {{ "
     "none|d('x', boolean=true) }} {{ undefinedvar|default }}|",
     "x None x x |"},
    {"{{ '42'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.9'|int }} {{ 3.9|int }} {{ ' 12 '|int }} "
     "{{ 'ff'|int(base=16) }} {{ '0x1f'|int(0,16) }} {{ true|int }} {{ none|int }} {{ [1]|int(3) "
     "}} {{ '1_000'|int }} {{ -3.9|int }}",
     "42 0 7 3 3 12 255 31 1 0 3 1000 -3"},
    {"{{ '3.75'|float }} {{ 'x'|float }} {{ 3|float }} {{ 'inf'|float }} {{ 'x'|float(1.5) }} {{ "
     "'1e3'|float }}",
     "3.75 0.0 3.0 inf 1.5 1000.0"},
    {"{{ -5|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.4|round(0,'ceil') }} "
     "{{ 2.6|round(method='floor') }} {{ 2.567|round(1,'floor') }} {{ 5|round }} {{ 0.125|round(2) "
     "}} {{ 2.675|round(2) }}",
     "5 2.57 2.0 4.0 3.0 2.0 2.5 5 0.12 2.67"},
    {"{{ 5|string + 'x' }} {{ none|string }} {{ [1]|string }} {{ 1.0|string }} {{ true|string }}",
     "5x None [1] 1.0 True"},
    {"{{ messages[2].tool_calls|tojson }}",
     "[{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": [1, 2.5, null, true], "
     "\"ü\": \"é\\n\\t\"}}}]"},
    {"{{ messages[2].tool_calls[0].function.arguments|tojson(indent=2) }}",
     "{\n  \"a\": 1,\n  \"b\": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  \"ü\": "
     "\"é\\n\\t\"\n}"},
    {"{{ {'a': [], 'b': {}, 'c': 'é\"\\n\\x07/', 1: 2, true: 3, none: 4, 1.5: 5}|tojson }}",
     "{\"a\": [], \"b\": {}, \"c\": \"é\\\"\\n\\u0007/\", \"1\": 3, \"null\": 4, \"1.5\": 5}"},
    {"{{ {'b':1,'a':'é😀'}|tojson(ensure_ascii=true, sort_keys=true) }} {{ "
     "{'b':1,'a':2}|tojson(separators=(',', ':')) }} {{ [1,[2]]|tojson(indent=4) }} {{ "
     "[1,2]|tojson(indent='\\t') }}",
     "{\"a\": \"\\u00e9\\ud83d\\ude00\", \"b\": 1} {\"b\":1,\"a\":2} [\n    1,\n    [\n        2\n "
     "   ]\n] [\n\t1,\n\t2\n]"},
    {"{{ big|tojson }} {{ small|tojson }} {{ 1.0|tojson }} {{ n|tojson }} {{ 'a'|tojson }} {{ "
     "none|tojson }} {{ (1,2)|tojson }}",
     "1e+20 1e-07 1.0 -7 \"a\" null [1, 2]"},
    {"{{ '<b>'|e }} {{ '<b>'|safe }} {{ '<b>'|safe + '<i>' }} {{ '<i>' + ('<b>'|safe) }} {{ "
     "('<b>'|e)|e }} {{ '<b>'|e ~ '<i>' }} {{ ('<b>'|safe).upper() + '<' }} {{ '<b>'|escape is "
     "escaped }}",
     "&lt;b&gt; <b> <b>&lt;i&gt; &lt;i&gt;<b> &lt;b&gt; &lt;b&gt;<i> <B>&lt; True"},
    {"{{ 'hello world foo'|wordcount }} {{ 'a'|center(5) }}| {{ 'hello-world foo(bar'|title }} {{ "
     "d|attr('get') is callable }} {{ messages|attr('zz') is defined }}",
     "3   a  | Hello-World Foo(Bar True False"},
    {"{{ 'x'|foo if false else 'y' }}", "y"},
    {"{{ (1, 2)[0] }} {{ (1) }} {{ (1,)|length }} {{ [1,2,][1] }} {{ {'a':1,}['a'] }}",
     "1 1 1 2 1"},
    {"{{ 'a'|upper|lower ~ 'B'|lower }} {{ -5|abs }} {{ (-5)|abs }} {{ 5 - 3|abs }} {{ not "
     "'a'|length }}",
     "ab 5 5 2 False"},
    {"{{ 'abc'[1]|upper }} {{ words[0]|upper ~ words[1] }} {{ words|first|upper }} {{ "
     "(words|length) * 2 }}",
     "B BA B 10"},
    {"{{ messages|map(attribute='role')|join(',') }} {{ "
     "messages|selectattr('role','==','user')|map(attribute='content')|first }} {{ "
     "messages|rejectattr('role','in',['user','system'])|list|length }}",
     "system,user,assistant hi <b> \"q\" 'x' 1"},
    {"{{ messages | tojson(indent=2) }}",
     "[\n  {\n    \"role\": \"system\",\n    \"content\": \" be nice\\n\"\n  },\n  {\n    "
     "\"role\": \"user\",\n    \"content\": \"hi <b> \\\"q\\\" 'x'\"\n  },\n  {\n    \"role\": "
     "\"assistant\",\n    \"content\": \"A<|end|>\",\n    \"tool_calls\": [\n      {\n        "
     "\"function\": {\n          \"name\": \"f\",\n          \"arguments\": {\n            \"a\": "
     "1,\n            \"b\": [\n              1,\n              2.5,\n              null,\n        "
     "      true\n            ],\n            \"ü\": \"é\\n\\t\"\n          }\n        }\n      "
     "}\n    ]\n  }\n]"},
    {"{{ \"a\" \"b\" ~ 'c' }} {{ ('a' 'b')|upper }}", "abc AB"},
    {"{{ 'é'|length }} {{ '😀'[0] }} {{ 'e\\u0301'|length }} {{ 'Ā'|lower }} {{ 'ÿ'|upper }}",
     "1 😀 2 ā Ÿ"},
    {"{{ d|tojson|length }} {{ d.items()|length }} {{ d.keys()|first }}", "29 3 b"},
    {"{{ tools[0].items()|list }} {{ tools[0].name.x }}|{{ tools[0]['p']['type'] }}",
     "[('name', 'zeta'), ('n', 3), ('p', {'type': 'object'})] |object"},
    {"{{ 'abc' if messages and messages[0]['role'] == 'system' and not (messages|length < 2) else "
     "'no' }}",
     "abc"},
    {"{{ messages[1:]|length }} {{ messages[::-1][0].role }} {{ messages[-2:][0]['role'] }}",
     "2 assistant user"},
    {"{{ (messages|last).role }} {{ messages|map(attribute='content')|map('trim')|list }} {{ "
     "messages|map(attribute='tool_calls')|select('defined')|list|length }}",
     "assistant ['be nice', 'hi <b> \"q\" \\'x\\'', 'A<|end|>'] 1"},
    {"{{ nope.x if nope is defined else 'safe' }} {{ (nope|default({})).x|default('dd') }} {{ "
     "(nope or {}).get('x', 'g') }}",
     "safe dd g"},
    {NULL, NULL},
};

const struct jinja_sample jinja_methods[] = {
    {"{{ 'aéb\\u2028ĊcĀ\\n日'.splitlines() }}", "['aéb', 'ĊcĀ', '日']"},
    {"{{ d.items is callable }} {{ d['items'] is defined }} {{ d['zz'] is defined }} {{ d.get('a') "
     "}} {{ d.get('q') }} {{ d.get('q', 5) }}",
     "True True False x None 5"},
    {"{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ "
     "'abc'.lstrip('ba') }}|{{ '\\u3000a\\u00a0'.strip() }}|",
     "a b|a|a | a|c|a|"},
    {"{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ "
     "'a,b,c'.rsplit(',', 1) }} {{ ' a  b c '.rsplit(None, 1) }} {{ ' a  b c '.split(None, 1) }} "
     "{{ ''.split() }} {{ ''.split(',') }} {{ 'aXXbXXc'.split('XX') }} {{ 'abc'.split('abc') }} {{ "
     "'a b'.split(' ')[0] }} {{ '  a b  '.rsplit() }} {{ 'a,b'.split(sep=',', maxsplit=0) }}",
     "['a', 'b', 'c'] ['a', 'b'] ['a', 'b,c'] ['a,b', 'c'] [' a  b', 'c'] ['a', 'b c '] [] [''] "
     "['a', 'b', 'c'] ['', ''] a ['a', 'b'] ['a,b']"},
    {"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x','a')) }} {{ "
     "'abc'.endswith('') }}",
     "True True True True"},
    {"{{ 'Hello World'.lower() }} {{ 'hello'.upper() }} {{ \"it's a dOG\".title() }} {{ 'hELLO "
     "wORLD'.capitalize() }} {{ 'aB'.swapcase() }}",
     "hello world HELLO It'S A Dog Hello world Ab"},
    {"{{ ', '.join(['a','b']) }}", "a, b"},
    {"{{ 'abcabc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abcabc'.rfind('c') }} {{ uni.find('語') "
     "}} {{ 'abc'.index('b') }} {{ 'aaa'.count('a') }} {{ 'aaa'.count('') }}",
     "2 -1 5 2 1 3 4"},
    {"{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('x') }} {{ "
     "'abc'.rpartition('x') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ "
     "'abc'.removesuffix('x') }}",
     "('a', '-', 'b-c') ('a-b', '-', 'c') ('abc', '', '') ('', '', 'abc') bc ab abc"},
    {"{{ '12'.isdigit() }} {{ 'a1'.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ "
     "'ab1'.isalnum() }} {{ ''.isdigit() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ "
     "'12'.isupper() }}",
     "True False True True True False True True False"},
    {"{{ ml.splitlines() }} {{ ''.splitlines() }} {{ 'a\\n'.splitlines() }}",
     "['l1', '', 'l2', 'l3'] [] ['a']"},
    {"{{ d.items()[0] }}|", "|"},
    {"{{ messages[0].content.strip().split()[0].upper() }}", "BE"},
    {"{{ d == {'a':'x','b':1,'C':none} }} {{ d != {} }} {{ 'b' in d.keys() }} {{ 1 in d.values() "
     "}} {{ ('b',1) in d.items() }}",
     "True True True True True"},
    {NULL, NULL},
};
