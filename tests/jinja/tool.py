"""Our renderer (jinja_tool), many templates in one process."""
import json
import os
import subprocess

import reference

TOOL = os.environ.get("SESSA_JINJA_TOOL", "build/release/jinja_tool")


def render_all(tasks):
    """tasks: pairs of a template and its contexts. For each a list of texts and Refusals."""
    lines = []
    for template, contexts in tasks:
        for i, context in enumerate(contexts):
            lines.append(json.dumps({"context": context} if i else {"template": template, "context": context}))
    done = subprocess.run([TOOL], input="\n".join(lines) + "\n", capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise AssertionError(f"jinja_tool ended with {done.returncode}: {done.stderr[-500:]}")
    answers = iter(done.stdout.split("\n"))
    out = []
    for _, contexts in tasks:
        out.append([])
        for _ in contexts:
            answer = json.loads(next(answers))
            out[-1].append(answer if isinstance(answer, str) else reference.Refusal(answer["error"]))
    return out


def same(ours, theirs):
    """The same text; or a refusal for a refusal, with the template's own words where it raised."""
    if isinstance(ours, reference.Refusal) != isinstance(theirs, reference.Refusal):
        return False
    if not isinstance(ours, reference.Refusal):
        return ours == theirs
    return not theirs.raised or str(theirs)[len("Raised: "):][:400] in ours
