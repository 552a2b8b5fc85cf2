"""Our templates against Jinja2's (reference.py): the same text, or a refusal for a refusal, on published templates and on random ones.

Published templates are fetched by fetch_templates.py into build/; where they cannot be had that test says so and skips.
"""
import concurrent.futures
import os
import pathlib
import re
import sys
import unittest

import chat_templates
import conversations
import random_templates
import reference
import tool

RANDOM = 10_000

# Where ours differs on purpose, or what Jinja2 makes nobody can know: (why, whether it is that).
KNOWN = [
    ("integers have 64 bits", lambda template, ours, theirs: "more than 64 bits" in ours or "range()" in ours),
    ("numbers are not complex", lambda template, ours, theirs: "complex numbers" in ours),
    ("addresses of Python's objects", lambda template, ours, theirs: re.search(r"generator|rotareneg|function|noitcnuf|object at 0x", ours + theirs, re.I)),
    ("names of characters that are not HTML 4's", lambda template, ours, theirs: "striptags does not know the character" in ours),
    # Jinja2 computes constants before it runs, and then asks an object for an item where it would have sliced it.
    ("slices of constants that have none", lambda template, ours, theirs: "cannot be sliced" in ours or "slice indices" in ours),
]


def reference_of(task):
    return reference.render(*task)


def compare(test, named_tasks):
    """named_tasks: (name, template, contexts). Fails with the first ten that differ; returns how often each known difference came."""
    tasks = [(template, contexts) for _, template, contexts in named_tasks]
    ours = tool.render_all(tasks)
    count = refused = 0
    different = []
    known = {}
    with concurrent.futures.ProcessPoolExecutor() as pool:  # Jinja2 compiles each to Python, which takes a millisecond
        theirs = list(pool.map(reference_of, tasks, chunksize=1 + len(tasks) // 64))
    for (name, template, contexts), answers, reference_answers in zip(named_tasks, ours, theirs):
        for i, (answer, expected) in enumerate(zip(answers, reference_answers, strict=True)):
            count += 1
            refused += isinstance(expected, reference.Refusal)
            why = None if tool.same(answer, expected) else next((why for why, is_it in KNOWN if is_it(template, answer, expected)), "")
            if why:
                known[why] = known.get(why, 0) + 1
            elif why == "":
                different.append(f"{name}, chat {i}: ours {type(answer).__name__} {str(answer)[:300]!r}, "
                                 f"Jinja2's {type(expected).__name__} {str(expected)[:300]!r}")
    agree = count - len(different) - sum(known.values())
    print(f"{test.id()}: {agree} of {count} agree ({100 * agree / max(count, 1):.2f} %), "
          f"{refused} of them refusals; known differences: {known or 'none'}", file=sys.stderr)
    test.assertEqual(different[:10], [])
    return known


class PublishedTemplatesTest(unittest.TestCase):
    def test_styles(self):
        known = compare(self, [(name, source, conversations.contexts()) for name, source in chat_templates.TEMPLATES.items()])
        self.assertEqual(known, {})

    def test_published(self):
        folder = pathlib.Path(os.environ.get("SESSA_TEMPLATES", "build/templates"))
        files = sorted(folder.glob("*.jinja"))
        if not files:
            self.skipTest(f"no templates in {folder}: tests/jinja/fetch_templates.py has not been run, or found nothing")
        self.assertEqual(compare(self, [(f.name, f.read_bytes().decode(), conversations.contexts()) for f in files]), {})


class RandomTemplatesTest(unittest.TestCase):
    def test_random(self):
        """`SESSA_RANDOM_SEED` tries others."""
        seed = int(os.environ.get("SESSA_RANDOM_SEED", "1"))
        tasks = [(repr(t), t, [random_templates.CONTEXT]) for t in random_templates.templates(RANDOM, seed)]
        known = compare(self, tasks)
        self.assertLess(sum(known.values()), RANDOM // 50)


if __name__ == "__main__":
    unittest.main()
