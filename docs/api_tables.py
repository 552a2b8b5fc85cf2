#!/usr/bin/env python3
"""Writes the tables of docs/api.md from what the server itself is built of: server/rest/openapi.json (which GET /openapi.json gives
and tests hold against the readers of requests), server/rest/router.cc, the protos, and the codes of errors in server/.

    api_tables.py            rewrites docs/api.md between its markers, <!-- NAME begin --> and <!-- NAME end -->
    api_tables.py --check    fails when that would change it
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
API = ROOT / "docs" / "api.md"
OPENAPI = json.loads((ROOT / "server" / "rest" / "openapi.json").read_text())
SHARED = ("Sampling", "Common", "TemplateVariables")  # schemas that others are made of: tables of their own
PROTOS = ("sessa/v1/generation", "inference/inference", "grpc/health/v1/health", "grpc/reflection/v1/reflection")


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ").strip()


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows])


# ---- REST ----

def resolve(schema):
    """Without $ref and allOf: {"properties", "required", ...} of all its parts."""
    if "$ref" in schema:
        return resolve(OPENAPI["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    merged = {**schema, "properties": {}, "required": list(schema.get("required", []))}
    for part in [*schema.get("allOf", []), *schema.get("oneOf", []), {"properties": schema.get("properties", {})}]:
        part = resolve(part) if "properties" not in part or "allOf" in part else part
        merged["properties"].update(part.get("properties", {}))
        merged["required"] += [name for name in part.get("required", []) if name not in merged["required"]]
    return merged


def type_of(schema):
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if "oneOf" in schema:
        return " or ".join(type_of(part) for part in schema["oneOf"])
    if schema.get("type") == "array":
        return f"array of {type_of(schema['items'])}"
    return schema.get("type", "object")


def bounds_of(schema):
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = []
    if low is not None and high is not None:
        parts.append(f"{low} to {high}")
    elif low is not None:
        parts.append(f"at least {low}")
    parts += [f"at most {part['maxItems']} items" for part in [schema, *schema.get("oneOf", [])] if "maxItems" in part]
    if "enum" in schema:
        parts.append(", ".join(f"`{value}`" for value in schema["enum"]))
    return "; ".join(parts)


def field_rows(schema, prefix=""):
    schema = resolve(schema)
    for name, field in schema["properties"].items():
        default = json.dumps(field["default"]) if "default" in field else "needed" if name in schema["required"] else ""
        yield f"`{prefix}{name}`", type_of(field), default, bounds_of(field), field.get("description", "")
        if field.get("type") == "object" and "properties" in field:
            yield from field_rows(field, f"{prefix}{name}.")


def endpoints():
    rows = [(method.upper(), f"`{path}`", entry.get("summary", ""))
            for path, methods in OPENAPI["paths"].items() for method, entry in methods.items() if isinstance(entry, dict) and "responses" in entry]
    return table(("method", "path", "what it does"), rows)


def fields(name):
    shared = {key for part in SHARED for key in resolve(OPENAPI["components"]["schemas"].get(part, {}))["properties"]}
    rows = field_rows(OPENAPI["components"]["schemas"][name])
    if name not in SHARED:
        rows = (row for row in rows if row[0].strip("`").split(".")[0] not in shared)
    return table(("field", "type", "default", "bounds", "what it does"), rows)


def limits():
    """Limits of server/core/limits.h: name, value, the comment beside or above it."""
    rows, comment = [], []
    for line in (ROOT / "server" / "core" / "limits.h").read_text().splitlines():
        code, _, remark = line.strip().partition("//")
        match = re.match(r"(?:int64_t|int|absl::Duration) (max_\w+|default_\w+) = ([^;]+);", code)
        if match:
            value = re.sub(r"^absl::(\w+)\((\d+)\)$", lambda m: f"{m[2]} {m[1].lower()}", match[2])
            rows.append((f"`{match[1]}`", value if " " in value and "<" not in value else eval(value, {}), " ".join([*comment, remark]).strip()))  # noqa: S307
        comment = [*comment, remark.strip()] if not code and remark else []
    return table(("limit", "default", "of what"), rows)


# ---- gRPC ----

def services(text):
    """(service, rpc, request, reply, comment) of each."""
    package = re.search(r"^package ([\w.]+);", text, re.M)[1]
    for service, body in re.findall(r"^service (\w+) \{\n(.*?)^\}", text, re.M | re.S):
        comment = []
        for line in body.splitlines():
            line = line.strip()
            if line.startswith("//"):
                comment.append(line[2:].strip())
            elif match := re.match(r"rpc (\w+)\((stream )?([\w.]+)\)", line):
                yield f"{package}.{service}", match[1], match[3], " ".join(comment)
                comment = []
            elif not line.startswith("returns"):
                comment = []


def messages(text):
    """(message, field, type, comment), the fields of nested messages as of messages of their own."""
    stack, comment = [], []
    for line in text.splitlines():
        code, _, remark = line.partition("//")
        code = code.strip()
        if not code:
            comment.append(remark.strip())
            continue
        if match := re.match(r"(message|enum|oneof|service) (\w+) \{(\})?", code):
            if match[3] is None:
                stack.append((match[1], match[2]))
        elif code == "}":
            stack.pop()
        elif stack and stack[-1][0] != "service" and (match := re.match(r"(?:(repeated|optional) )?(map<[^>]*>|[\w.]+)? ?(\w+) = \d+;", code)):
            owner = [name for kind, name in stack if kind in ("message", "enum")][-1]
            kind = match[2] or ""
            yield owner, match[3], f"{match[1]} {kind}".removeprefix("None ").strip(), remark.strip() or " ".join(comment).strip()
        comment = []


def rpcs():
    rows = []
    for proto in PROTOS:
        for service, rpc, request, comment in services((ROOT / "proto" / f"{proto}.proto").read_text()):
            rows.append((f"`{service}/{rpc}`", f"`{request}`", comment))
    return table(("RPC", "request", "what it does"), rows)


def message_table(proto):
    rows = [(f"`{owner}.{field}`", kind, comment) for owner, field, kind, comment in messages((ROOT / "proto" / f"{proto}.proto").read_text())]
    return table(("field", "type", "what it is"), rows)


# ---- errors ----

NO_CODES = {"input", "model", "model_version"}  # fields that are named in the same calls


def error_codes():
    """The codes of errors in the server's sources: literals in the calls that make errors, but for OpenAI's types."""
    calls = re.compile(r"\b(?:FieldError|Annotate|UnavailableError|ErrorReply|fill)\((?:[^()]|\([^()]*(?:\([^()]*\)[^()]*)*\))*\)")
    found = set()
    for path in [*(ROOT / "server").rglob("*.cc"), *(ROOT / "server").rglob("*.h")]:
        for call in calls.findall(re.sub(r"//[^\n]*", "", path.read_text())):
            if call.startswith("FieldError("):  # the first argument is the field
                call = call[call.find(",") + 1:]
            found.update(re.findall(r'(?<![\w"] )"([a-z]+(?:_[a-z]+)*)"(?=\s*[,)])', call))
    return {code for code in found - NO_CODES if not code.endswith("_error") or code == "internal_error"}


# ---- the file ----

TABLES = {
    "endpoints": endpoints,
    "limits": limits,
    "rpcs": rpcs,
    "generation.proto": lambda: message_table("sessa/v1/generation"),
    "inference.proto": lambda: message_table("inference/inference"),
    **{name: (lambda name=name: fields(name)) for name in (
        "Sampling", "Common", "CompletionRequest", "ChatRequest", "TemplateVariables", "Message", "ResponseRequest", "TokenizeRequest",
        "DetokenizeRequest", "SimilarityRequest", "KserveGenerateRequest") if name in OPENAPI["components"]["schemas"]},
}


def rewritten(text):
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} begin -->\n).*?(<!-- {re.escape(name)} end -->)", re.S)
        if not pattern.search(text):
            sys.exit(f"{API}: there is no place for the table {name}")
        text = pattern.sub(lambda m: f"{m[1]}{make()}\n{m[2]}", text)
    return text


def missing(text):
    """What the code has and the text has not."""
    router = re.sub(r"//[^\n]*", "", (ROOT / "server" / "rest" / "router.cc").read_text())
    for path in re.findall(r'"(/[^"]*)"', router):
        if path.rstrip("/") not in text:
            yield f"the path {path} of router.cc"
    described = set(re.findall(r"^\| `(\w+)` \|", text.partition("## Errors")[2].partition("\n## ")[0], re.M))
    for code in sorted(error_codes() ^ described):
        yield f"the code {code}" if code not in described else f"a source of the code {code}, which it describes"
    flags = (ROOT / "server" / "main" / "flags.cc").read_text()
    for flag in set(re.findall(r"`--(\w+)", text)):
        if not re.search(rf"ABSL_FLAG\(\s*[\w:]+, {flag},", flags):
            yield f"the flag --{flag}, which it names and the server has not"
    log = (ROOT / "docs" / "metrics.md").read_text().partition("## The log")[2]
    for field in re.findall(r'fields\.\w+\("(\w+)"', (ROOT / "server" / "core" / "access_log.cc").read_text()):
        if f"`{field}`" not in log:
            yield f"the log's field {field} (docs/metrics.md)"
    health = re.sub(r"//[^\n]*", "", (ROOT / "server" / "grpc" / "grpc_server.cc").read_text())
    for name in re.findall(r'Publish\("([^"]+)"', health):
        if f"`{name}`" not in text:
            yield f"the health name {name}"


def main():
    text = API.read_text()
    new = rewritten(text)
    problems = list(missing(new))
    if sys.argv[1:] == ["--check"]:
        if new != text:
            problems.append("its tables are not those of the code: run docs/api_tables.py")
    else:
        API.write_text(new)
    for problem in problems:
        print(f"docs/api.md lacks {problem}" if not problem.startswith("its") else f"docs/api.md: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
