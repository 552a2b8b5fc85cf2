"""Jinja2 set up as Hugging Face's transformers sets it up for chat templates (5.24: utils/chat_template_utils.py).

An immutable sandbox with trim_blocks and lstrip_blocks, break and continue, the tag `generation`, which without a tracker
only makes a scope, and transformers' own tojson, raise_exception, strftime_now, dict and namespace.
"""
import contextlib
import datetime
import io
import json

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.utils


class GenerationTag(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller):
        return caller()


class CallableDict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)


class GuardedNamespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            GuardedNamespace.check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        GuardedNamespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot have {name!r}")


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Raised(jinja2.TemplateError):
    """The template's own refusal."""


def raise_exception(message):
    raise Raised(message)


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, dict=CallableDict(), namespace=GuardedNamespace,
                               strftime_now=lambda format: datetime.datetime.now().strftime(format))
    return environment


ENVIRONMENT = make_environment()


class Refusal(str):
    """Why there is no text."""
    raised = False


def render(template, contexts):
    """For each context the text, or a Refusal."""
    answers = []
    compiled = None
    for context in contexts:
        try:
            if compiled is None:
                with contextlib.redirect_stderr(io.StringIO()):  # Python warns of odd escapes
                    compiled = ENVIRONMENT.from_string(template)
            answer = compiled.render(**context)
            answer.encode()  # what no UTF-8 can hold is no prompt
        except Exception as error:  # whatever a template makes Python raise is a refusal
            answer = Refusal(f"{type(error).__name__}: {error}")
            answer.raised = isinstance(error, Raised)
        answers.append(answer)
    return answers
