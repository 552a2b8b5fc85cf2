"""Random small templates: the language's parts put together by their kinds, and now and then against them."""
import random

CONTEXT = {
    "s": "Hello, World", "u": "  Ünï ǅ ß\u3000x\u00a0", "e": "", "n": 7, "m": -3, "z": 0, "f": 2.5, "b": True, "none_": None,
    "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "empty": [], "d": {"b": 1, "a": [1, 2], "C": {"x": "y"}},
    "msgs": [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Yo\nline 2", "n": 2}, {"role": "user", "content": ""}],
    "mixed": [1, "a", None, 2.5, [1], {"k": "v"}, True],
}
TEXTS = ["'a'", "'abc'", "''", "' x y '", "'a,b,,c'", "'Straße'", "\"it's\"", "'\\n'", "'tab\\there'", "'\\u00e9x'", "'{}'", "'%s'", "'A-b c'", "'12'", "'3.7'", "'ab' 'cd'", "'<p class=x>a</p>  b<!-- <c> --> &lt;i&gt; &amp &eacute; &#65;&#x80; &notx; AT&T <'", "'one-two--three x-y-zz well-known'", "'see (http://a.b/c_(d)), www.x.org. me@x.com <mailto:a@b.de> tel:+1 a.b 10.0.0.1 https://1.2.3.4:80/ x.info?q'"]
INTEGERS = ["0", "1", "2", "3", "7", "-1", "-4", "10", "255", "1_000", "0x1f"]
FLOATS = ["0.5", "2.0", "1e3", "1.5e-7", "3.14159", "1e16", "123456789.125"]
CHARS = ["'a'", "','", "' '", "'l'", "'xyz'", "'\\n'", "'b,'"]


class Generator:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.names = []  # what set, for and macros have put there
        self.macros = []

    def pick(self, *options):
        option = self.rng.choice(options)
        return option() if callable(option) else option

    def chance(self, p):
        return self.rng.random() < p

    # --- expressions of a kind ---

    def text(self, d):
        if d <= 0 or self.chance(0.3):
            return self.pick(*TEXTS, "s", "u", "e", "msgs[0].content", "msgs[1]['role']", "d.C.x", "w[0]")
        i, t = self.integer, self.text
        return self.pick(
            lambda: f"{t(d - 1)} ~ {self.any(d - 1)}", lambda: f"({t(d - 1)} + {t(d - 1)})", lambda: f"({t(d - 1)} * {i(0)})",
            lambda: f"{self.any(d - 1)} | string", lambda: f"({t(d - 1)}){self.slice(d)}", lambda: f"({t(d - 1)}).{self.text_method(d)}",
            lambda: f"{t(d - 1)} | {self.text_filter(d)}", lambda: f"{self.list(d - 1)} | join({self.pick(*CHARS)})",
            lambda: f"{self.pick(*CHARS)}.join({self.list(d - 1)})", lambda: f"{self.any(d - 1)} | tojson{self.json_options()}",
            lambda: f"({t(d - 1)} if {self.boolean(d - 1)} else {t(d - 1)})", lambda: self.formatted(d),
            lambda: f"({self.any(d - 1)} | default({t(d - 1)}, true))",
            lambda: f"{self.any(d - 1)} | pprint", lambda: f"{self.mapping(d - 1)} | xmlattr{self.pick('', '(false)')}")

    def text_method(self, d):
        c, i = (lambda: self.pick(*CHARS)), (lambda: self.integer(0))
        return self.pick(
            "upper()", "lower()", "title()", "capitalize()", "swapcase()", "casefold()", "strip()", "lstrip()", "rstrip()",
            lambda: f"strip({c()})", lambda: f"lstrip({c()})", lambda: f"rstrip({c()})", lambda: f"replace({c()}, {self.pick(*TEXTS)})",
            lambda: f"replace({c()}, {self.pick(*TEXTS)}, {i()})", lambda: f"center({i()})", lambda: f"ljust({i()}, {c()})", lambda: f"rjust({i()})",
            lambda: f"zfill({i()})", lambda: f"removeprefix({c()})", lambda: f"removesuffix({c()})", "expandtabs()", lambda: f"expandtabs({i()})",
            lambda: f"format({self.any(0)}, x={self.any(0)})", lambda: f"partition({c()})[{self.rng.randrange(3)}]",
            lambda: f"rpartition({c()})[{self.rng.randrange(3)}]")

    def text_filter(self, d):
        return self.pick(
            "upper", "lower", "title", "capitalize", "trim", lambda: f"trim({self.pick(*CHARS)})", "escape", "e", "safe", "forceescape", "string", "reverse",
            lambda: f"replace({self.pick(*CHARS)}, {self.pick(*TEXTS)})", lambda: f"replace({self.pick(*CHARS)}, {self.pick(*TEXTS)}, count={self.integer(0)})",
            lambda: f"center({self.integer(0)})", lambda: f"indent({self.pick('2', 'width=3, first=true', chr(39) + '> ' + chr(39), '1, blank=true', '')})",
            lambda: f"truncate({self.pick('5', '8, true', '7, false, ' + chr(39) * 2, '4, end=' + chr(39) + '.' + chr(39), '6, leeway=0', '')})",
            "urlencode", lambda: f"default({self.pick(*TEXTS)})", lambda: f"d({self.pick(*TEXTS)}, boolean=true)", "list | join", "first", "last", "striptags", "pprint", "urlize", lambda: f"urlize({self.pick('8', 'nofollow=true', 'target=' + chr(39) + '_b' + chr(39), 'rel=' + chr(39) + 'me x' + chr(39), 'extra_schemes=[' + chr(39) + 'tel:' + chr(39) + ']')})",
            lambda: f"wordwrap({self.pick('5', '3, false', '4, true, ' + chr(39) + '|' + chr(39), '6, break_on_hyphens=false', '2', '', '0')})")

    def formatted(self, d):
        conversion = self.pick("%s", "%r", "%d", "%5d", "%-5d|", "%05d", "%+d", "%x", "%X", "%o", "%#x", "%.2f", "%8.3f", "%e", "%g", "%10s", "%-4s|", "%.2s", "%c", "%%", "%i", "% d", "%.3d")
        spec = self.pick("", ":>6", ":<6", ":^7", ":*^9", ":05d", ":+", ":,", ":_", ":x", ":#x", ":b", ":o", ":.2f", ":10.3f", ":e", ":g", ":%", ":.1%", ":s", ":.2", "!r", "!s:>5", ":08.2f", ":<08", ":=+7", ":n", ":c", ":,.2f", ":.3g")
        return self.pick(
            lambda: f"('<{conversion}>' % {self.any(0)})", lambda: f"('{conversion} %s' % ({self.any(0)}, {self.any(0)}))", lambda: f"('%(b)s {conversion.replace('%', '%(b)')}' % d)",
            lambda: f"'<{{{spec}}}>'.format({self.any(0)})", lambda: f"'{{1}} {{0{spec}}}'.format({self.any(0)}, {self.any(0)})", lambda: f"'{{x{spec}}} {{y[0]}}'.format(x={self.any(0)}, y={self.list(0)})",
            lambda: f"'{conversion} %s' | format({self.any(0)}, {self.any(0)})", lambda: f"'%(x)s' | format(x={self.any(0)})", lambda: f"'{{d.b}} {{d[C]}}'.format(d=d)", lambda: f"'{{:{{}}}}'.format({self.any(0)}, {self.integer(0)})")

    def json_options(self):
        return self.pick("", "", "", "(indent=2)", "(ensure_ascii=true)", "(sort_keys=true)", "(separators=(',', ':'))", "(indent=1, separators=(', ', ' : '))", "(true)", "(indent='-')", "(indent=0)")

    def slice(self, d):
        i = lambda: self.pick("", "", "0", "1", "2", "-1", "-2", "5", "none", "-9", "99")
        return self.pick(lambda: f"[{i()}:{i()}]", lambda: f"[{i()}:]", lambda: f"[:{i()}]", lambda: f"[{i()}:{i()}:{self.pick('1', '2', '-1', '-2', '', '3')}]", "[::-1]", "[0]", "[-1]", "[1]", "[9]")

    def integer(self, d):
        if d <= 0 or self.chance(0.3):
            return self.pick(*INTEGERS, "n", "m", "z", "l[0]", "msgs[1].n", "d.b")
        i = self.integer
        return self.pick(
            lambda: f"({i(d - 1)} {self.pick('+', '-', '*', '//', '%')} {i(d - 1)})", lambda: f"({self.pick('2', '3', 'm', 'n')} ** {self.pick('0', '1', '3', '5')})",
            lambda: f"-{i(0)}", lambda: f"{self.any(d - 1)} | length", lambda: f"{self.any(d - 1)} | int", lambda: f"{self.text(d - 1)} | int({i(0)}, {self.pick('2', '8', '10', '16')})",
            lambda: f"({self.text(d - 1)}).{self.pick('find', 'rfind', 'count', 'index')}({self.pick(*CHARS)})", lambda: f"({self.text(d - 1)}).find({self.pick(*CHARS)}, {i(0)}, {i(0)})",
            lambda: f"{self.list(d - 1)} | {self.pick('sum', 'min', 'max', 'first', 'last', 'count')}", lambda: f"({self.number(d - 1)}) | abs", lambda: f"{self.text(d - 1)} | wordcount",
            lambda: f"({self.list(d - 1)}).{self.pick('count', 'index')}({self.any(0)})")

    # The base of a power is never a negative constant: Jinja2 computes it first and writes it into Python's source, where
    # ** binds tighter than the sign.
    def number(self, d):
        if d <= 0 or self.chance(0.3):
            return self.pick(*FLOATS, "f", lambda: self.integer(0))
        return self.pick(
            lambda: f"({self.number(d - 1)} {self.pick('+', '-', '*', '/', '//', '%', '/')} {self.number(d - 1)})", lambda: f"({self.number(d - 1)}) | round{self.pick('', '(1)', '(2, ' + chr(39) + 'floor' + chr(39) + ')', '(method=' + chr(39) + 'ceil' + chr(39) + ')', '(-1)', '(3)')}",
            lambda: f"({self.pick(*FLOATS, 'f', 'n', 'z')} ** {self.number(d - 1)})", lambda: f"{self.any(d - 1)} | float", lambda: f"{self.text(d - 1)} | float({self.number(0)})", lambda: f"{self.integer(d - 1)} | abs", lambda: f"-{self.number(0)}", lambda: f"{self.list(d - 1)} | sum")

    def list(self, d):
        if d <= 0 or self.chance(0.3):
            return self.pick("l", "w", "empty", "msgs", "mixed", "d.a", "[]", "(1, 2)", "('a', 'b',)", "()", "range(4)", "range(5, 0, -2)", "[1, 2, 3]", "d", "s")
        x = self.any
        return self.pick(
            lambda: f"[{x(d - 1)}, {x(d - 1)}]", lambda: f"({x(d - 1)}, {x(d - 1)})", lambda: f"({self.list(d - 1)} + {self.list(d - 1)})", lambda: f"({self.list(d - 1)}){self.slice(d)}",
            lambda: f"({self.list(0)} * {self.integer(0)})", lambda: f"({self.text(d - 1)}).split({self.pick('', ',', ' ', 'l') and self.pick('', *CHARS)})",
            lambda: f"({self.text(d - 1)}).{self.pick('split', 'rsplit')}({self.pick(*CHARS, 'none')}, {self.integer(0)})", lambda: f"({self.text(d - 1)}).splitlines({self.pick('', 'true')})", lambda: f"({self.text(d - 1)}).{self.pick('partition', 'rpartition')}({self.pick(*CHARS)})",
            lambda: f"{self.list(d - 1)} | {self.list_filter(d)} | list", lambda: f"{self.list(d - 1)} | {self.list_filter(d)}", lambda: f"{self.mapping(d - 1)}.{self.pick('items', 'keys', 'values')}()",
            lambda: f"{self.mapping(d - 1)} | {self.pick('items', 'dictsort', 'list', 'dictsort(true)', 'dictsort(by=' + chr(39) + 'value' + chr(39) + ')', 'dictsort(false, reverse=true)')}", lambda: f"range({self.integer(0)})", lambda: f"range({self.integer(0)}, {self.integer(0)})")

    def list_filter(self, d):
        q = lambda t: f"'{t}'"
        return self.pick(
            "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "sort(attribute='role')", "sort(attribute='content,role')", "reverse", "unique", "unique(true)", "unique(attribute='role')", "list", "select", "reject",
            lambda: f"map({q(self.pick('upper', 'string', 'length', 'int', 'abs', 'trim', 'tojson', 'first', 'e'))})", lambda: f"map(attribute={q(self.pick('role', 'content', 'n', '0', 'content.0'))})", "map(attribute='n', default=0)", "map('replace', 'a', 'b')", "map('default', 'x')", "map('round', 1)",
            lambda: f"select({q(self.pick('string', 'number', 'odd', 'even', 'defined', 'none', 'mapping', 'sequence', 'true', 'integer'))})", lambda: f"reject({q(self.pick('string', 'number', 'none', 'iterable'))})",
            lambda: f"select({q(self.pick('gt', 'lt', 'eq', '==', 'ne', '>=', 'equalto', 'divisibleby'))}, {self.integer(0)})", "select('in', [1, 'a', 2])",
            lambda: f"{self.pick('selectattr', 'rejectattr')}({q(self.pick('role', 'n', 'content'))})", lambda: f"{self.pick('selectattr', 'rejectattr')}('role', {q(self.pick('equalto', 'eq', 'ne', 'in'))}, {self.text(0)})", "selectattr('n', 'defined')",
            lambda: f"batch({self.pick('1', '2', '3')}{self.pick('', ', ' + q('-'))})", lambda: f"slice({self.pick('1', '2', '3')}{self.pick('', ', ' + q('-'))})", "groupby('role')", "groupby('n', default=1)", "map('list')", "first", "last", "items")

    def mapping(self, d):
        if d <= 0 or self.chance(0.4):
            return self.pick("d", "msgs[0]", "d.C", "{}", "{'k': 1, 'j': 'v'}", "dict(a=1, b='x')", "{1: 'one', 'a': none, (1, 2): 3}")
        return self.pick(lambda: f"{{{self.pick(*TEXTS)}: {self.any(d - 1)}, {self.any(0)}: {self.any(d - 1)}}}", lambda: f"dict({self.mapping(d - 1)}, q={self.any(d - 1)})", lambda: f"dict([('a', {self.any(d - 1)})])", lambda: f"{self.mapping(d - 1)}.copy()")

    def boolean(self, d):
        if d <= 0 or self.chance(0.2):
            return self.pick("true", "false", "b", "none_", "nothing", lambda: self.any(0))
        x = self.any
        return self.pick(
            lambda: f"{x(d - 1)} {self.pick('==', '!=')} {x(d - 1)}", lambda: f"{self.number(d - 1)} {self.pick('<', '<=', '>', '>=')} {self.number(d - 1)}", lambda: f"{self.integer(0)} < {self.integer(0)} <= {self.integer(0)}",
            lambda: f"{self.text(d - 1)} {self.pick('<', '>', 'in', 'not in')} {self.text(d - 1)}", lambda: f"{x(d - 1)} {self.pick('in', 'not in')} {self.list(d - 1)}", lambda: f"{self.text(0)} in {self.mapping(d - 1)}",
            lambda: f"not {self.boolean(d - 1)}", lambda: f"({self.boolean(d - 1)} {self.pick('and', 'or')} {self.boolean(d - 1)})", lambda: f"{x(d - 1)} is {self.pick('', 'not ')}{self.test()}",
            lambda: f"({self.text(d - 1)}).{self.pick('isalpha', 'isdigit', 'isupper', 'islower', 'isspace', 'isalnum', 'istitle', 'isnumeric', 'isdecimal', 'isascii', 'isidentifier', 'isprintable')}()",
            lambda: f"({self.text(d - 1)}).{self.pick('startswith', 'endswith')}({self.pick(*CHARS, '(' + chr(39) + 'a' + chr(39) + ', ' + chr(39) + 'H' + chr(39) + ')')})", lambda: f"{self.list(d - 1)} < {self.list(d - 1)}")

    def test(self):
        return self.pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "lower", "upper", "odd", "even", "escaped",
                         "divisibleby 2", "divisibleby(3)", "in [1, 2]", "in(d)", "eq 1", "equalto('a')", "sameas true", "gt 1", "lt(3)", "ne none", "ge 2.5", "filter", "test")

    def any(self, d):
        if d <= 0:
            return self.pick(lambda: self.text(0), lambda: self.integer(0), lambda: self.number(0), lambda: self.list(0), lambda: self.mapping(0), "none", "true", "nothing", "msgs[0].nothing", "d['a']", "d.C", "mixed[5]", "msgs[-1]",
                             lambda: self.pick(*self.names) if self.names else "s")
        return self.pick(self.text, self.text, self.integer, self.number, self.list, self.mapping, self.boolean, self.called)(d) if False else \
            self.rng.choice([self.text, self.text, self.integer, self.number, self.list, self.mapping, self.boolean, self.called])(d)

    def called(self, d):
        if self.macros and self.chance(0.7):
            return f"{self.pick(*self.macros)}({self.pick('', lambda: self.any(0), lambda: self.any(0) + ', ' + self.any(0), lambda: 'y=' + self.any(0))})"
        return self.pick(lambda: f"{self.mapping(d - 1)}.get({self.text(0)}, {self.any(0)})", lambda: f"{self.mapping(d - 1)}.get({self.any(0)})", lambda: f"({self.any(d - 1)})[{self.any(0)}]", lambda: f"({self.any(d - 1)}).{self.pick('a', 'role', 'x', 'b')}", lambda: f"{self.any(d - 1)} | {self.pick('first', 'last', 'length', 'list', 'string', 'upper', 'sum', 'min', 'max', 'tojson', 'int', 'join')}")

    # --- statements ---

    def tag(self, inside, output=False):
        left, right = self.pick("", "", "-", "+"), self.pick("", "", "-", "" if output else "+")
        return ("{{%s %s %s}}" if output else "{%%%s %s %s%%}") % (left, inside, right)

    def data(self):
        return self.pick("", "", " ", "x", "\n", "  \n", "\n  ", " a\n\n b ", "\t", "{ }", "é\n", "\r\n", "{# c #}", "{#- c\n -#}\n", "  {# c #}  \n", "'", "% }")

    def body(self, d, loop=False):
        names = list(self.names)
        out = "".join(self.data() + self.statement(d, loop) for _ in range(self.rng.choice((1, 1, 2)))) + self.data()
        self.names = names
        return out

    def block(self, head, end, d, loop=False, otherwise=None):
        out = self.tag(head) + self.body(d, loop)
        if otherwise and self.chance(0.3):
            out += self.tag(otherwise) + self.body(d, loop)
        return out + self.tag(end)

    def statement(self, d, loop):
        if d <= 0 or self.chance(0.4):
            if loop and self.chance(0.3):
                return self.tag(self.pick("loop.index", "loop.index0", "loop.first", "loop.last", "loop.length", "loop.revindex", "loop.revindex0", "loop.previtem", "loop.nextitem", "loop.depth", "loop.cycle(1, 'a')", "loop.changed(i)", "loop.nothing", "i", "loop.depth0"), True)
            return self.tag(self.any(self.rng.randrange(1, 3)), True)
        names = ["p", "q", "i", "s2", "n", "l"]  # the last two have a value before
        kind = self.rng.choice(["if", "for", "for", "set", "set", "namespace", "macro", "call", "setblock", "filter", "with", "raw", "leave", "tuple", "generation", "print"])
        if kind == "if":
            head = self.tag(f"if {self.boolean(2)}") + self.body(d - 1, loop)
            if self.chance(0.3):
                head += self.tag(f"elif {self.boolean(1)}") + self.body(d - 1, loop)
            return head + (self.tag("else") + self.body(d - 1, loop) if self.chance(0.4) else "") + self.tag("endif")
        if kind == "for":
            target = self.pick("i", "i", "i", "k, i")
            over = self.list(1) if target == "i" else self.pick("d.items()", "d | dictsort", "[(1, 2), (3, 4)]", "msgs | groupby('role')", "d | items", "[[1, 2, 3]]")
            self.names.append("i")
            condition = f" if {self.boolean(1)}" if self.chance(0.25) else ""
            out = self.block(f"for {target} in {over}{condition}", "endfor", d - 1, True, "else")
            self.names.pop()
            return out
        if kind == "set":
            name = self.pick(*names)
            out = self.tag(f"set {name} = {self.any(2)}")
            self.names.append(name)
            return out
        if kind == "tuple":
            self.names += ["p", "q"]
            return self.tag(f"set p, q = {self.pick('1, 2', 'l', 'w[:2]', '(s, n)', 'd')}")
        if kind == "namespace":
            out = self.tag(f"set ns = namespace(a={self.any(1)})") + self.body(0, loop) + self.tag(f"set ns.{self.pick('a', 'b')} = {self.any(1)}")
            self.names += ["ns.a", "ns.b", "ns"]
            return out
        if kind == "macro":
            name = self.pick("mac", "mac2")
            self.macros.append(name)
            out = self.block(f"macro {name}({self.pick('', 'x', 'x, y=1', 'x=2, y=n', 'y')})", "endmacro", d - 1)
            return out + self.pick("", self.tag(f"{name}({self.any(0)})", True))
        if kind == "call":
            macro = self.tag("macro wrap(x='w')") + self.pick("{{ caller() }}", "<{{ caller(x) }}>", "{{ caller(1) if caller is defined }}", "no", "{{ varargs }}{{ kwargs }}") + self.tag("endmacro")
            return macro + self.block(f"call{self.pick('', '', '(a)', '(a=5)')} wrap({self.pick('', self.any(0))})", "endcall", d - 1)
        if kind == "setblock":
            name = self.pick(*names)
            out = self.block(f"set {name}{self.pick('', ' | upper', ' | trim | title')}", "endset", d - 1, loop)
            self.names.append(name)
            return out
        if kind == "filter":
            return self.block(f"filter {self.text_filter(1)}", "endfilter", d - 1, loop)
        if kind == "with":
            return self.block(f"with {self.pick('p = 1', 'p = s, q = p', 'p, q = (1, 2)', '')}", "endwith", d - 1, loop)
        if kind == "generation":
            return self.block("generation", "endgeneration", d - 1)
        if kind == "raw":
            return self.tag("raw").replace("+%}", "%}") + self.pick("{{ x }}", "  {% if %}\n", "{# #}", "\n") + self.tag("endraw")
        if kind == "print":
            return self.tag(f"print {self.any(1)}, {self.any(0)}")
        return self.tag(f"if {self.boolean(1)}") + self.tag(self.pick("break", "continue")) + self.tag("endif") if loop else self.tag("'x'", True)

    def template(self):
        return self.body(self.rng.choice((1, 1, 2, 3))) + self.pick("", "\n", "\n\n", " ")


def templates(count, seed=1):
    for i in range(count):
        generator = Generator(seed * 1_000_003 + i)
        yield generator.template()
