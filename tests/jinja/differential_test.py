"""Our templates against Jinja2's (reference.py): the same text, or a refusal for a refusal, on published templates and on random ones.

Published templates are fetched by fetch_templates.py into build/; where they cannot be had that test says so and skips.
"""
import os
import pathlib
import sys
import unittest

import chat_templates
import conversations
import reference
import tool


def compare(test, named_tasks):
    """named_tasks: (name, template, contexts). Fails with the first ten that differ."""
    ours = tool.render_all([(template, contexts) for _, template, contexts in named_tasks])
    count = refused = 0
    different = []
    for (name, template, contexts), answers in zip(named_tasks, ours):
        for i, (answer, expected) in enumerate(zip(answers, reference.render(template, contexts), strict=True)):
            count += 1
            refused += isinstance(expected, reference.Refusal)
            if not tool.same(answer, expected):
                different.append(f"{name}, chat {i}: ours {type(answer).__name__} {answer[:300]!r}, "
                                 f"Jinja2's {type(expected).__name__} {expected[:300]!r}")
    print(f"{test.id()}: {count - len(different)} of {count} agree ({100 * (1 - len(different) / max(count, 1)):.2f} %), "
          f"{refused} of them refusals", file=sys.stderr)
    test.assertEqual(different[:10], [])


class PublishedTemplatesTest(unittest.TestCase):
    def test_styles(self):
        compare(self, [(name, source, conversations.contexts()) for name, source in chat_templates.TEMPLATES.items()])

    def test_published(self):
        folder = pathlib.Path(os.environ.get("SESSA_TEMPLATES", "build/templates"))
        files = sorted(folder.glob("*.jinja"))
        if not files:
            self.skipTest(f"no templates in {folder}: tests/jinja/fetch_templates.py has not been run, or found nothing")
        compare(self, [(f.name, f.read_bytes().decode(), conversations.contexts()) for f in files])


if __name__ == "__main__":
    unittest.main()
