#!/usr/bin/env python3
"""Keeps the parts of the tree apart (docs/architecture.md, "Parts and their direction").

Fails when an include goes against server -> engine -> kernels, when server/jinja knows anything else of ours, when anything but server, loadtest and tests uses proto,
when anything depends on tests, when the scheduler, its ledger or the step plan name a family of models, when a file in engine/ or kernels/ throws or calls getenv, when the wall clock or a wait
that counts by it is used where an hour's step would end requests, and when a file outgrows its limit. `layering_test.py ROOT` checks a tree; `layering_test.py --self-test` feeds the rules violations.
"""
import pathlib
import re
import sys
import tempfile

# What each folder may include, besides itself. A folder that is not here may not hold C++ at all.
ALLOWED = {
    "flags": set(),
    "kernels": set(),
    "engine": {"kernels"},
    "proto": set(),
    "server": {"engine", "flags", "kernels", "proto"},
    "loadtest": {"flags", "proto"},
    "tests": {"flags", "kernels", "engine", "proto", "server", "loadtest"},
}
# Folders of server/ that stand alone: what they may include of server/.
ALONE = {"server/jinja"}
# What plans and counts is the same for every family of models: these files name none, in code or in comments. The
# namespace is the project's, no family.
WITHOUT_FAMILIES = re.compile(r"engine/(?:scheduler\w*|state_ledger|step_plan|slot_pool|page_\w+|sequence|request_state)\.(?:h|cc)")
FAMILY = re.compile(r"(?<!namespace )(?:sessa|llama|mamba|mistral|qwen|feedback|transformer)", re.I)
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
HOST_LIMIT, KERNEL_LIMIT = 400, 500
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]')
GENERATED = re.compile(r"^(sessa/v1|google/rpc|grpc/(health|reflection)|inference)/.*\.pb\.h$")
# absl::Mutex's timed waits count by the wall clock (Abseil 20220623); engine/monotonic.h has what takes their place.
WALL_CLOCK = re.compile(r"\babsl::Now\s*\(|\b\w+With(?:Timeout|Deadline)\s*\(|\bsystem_clock\b|\bCLOCK_REALTIME\b"
                        r"|\bgettimeofday\b|\btime\(nullptr\)")
WALL_CLOCK_FILES = {
    "server/core/access_log.h", "server/core/load_progress.cc", "server/core/log.cc", "server/grpc/call_log.cc",  # for people to read
    "server/core/service.h", "server/rest/handlers.cc",  # the API's `created`
    "server/cache_events/cache_events.cc",  # the time that a message carries
    "server/jinja/functions.cc",  # the date that templates write
    "server/grpc/call.cc", "server/grpc/grpc_server.cc",  # gRPC's deadlines, turned into durations at once
    "server/grpc/watcher.cc",  # how often it looks; by what clock it judges is the calls' own
}
BANNED = re.compile(r"\bthrow\b|\b(?:secure_)?getenv\s*\(")


def code_of(text):
    """The text with comments, string and character literals blanked, line for line."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: "\n" * m.group().count("\n") or " ", text)


def folder_of_include(path):
    if GENERATED.match(path):
        return "proto"
    first = path.split("/")[0]
    return first if "/" in path and first in ALLOWED else None


def check_file(path, text):
    """Violations of one file; `path` is relative to the root, with slashes."""
    found = []
    folder = path.split("/")[0]
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        target = folder_of_include(match.group(1)) if match else None
        if target and target != folder and target not in ALLOWED[folder]:
            found.append(f"{path}:{number}: {folder} must not include {match.group(1)}")
        parent = path.rpartition("/")[0]
        if target and parent in ALONE and not match.group(1).startswith(parent + "/"):
            found.append(f"{path}:{number}: {parent} stands alone and must not include {match.group(1)}")
    if WITHOUT_FAMILIES.fullmatch(path):
        for number, line in enumerate(lines, 1):
            match = FAMILY.search(line)
            if match:
                found.append(f"{path}:{number}: '{match.group()}' names a family of models; what plans and counts knows none")
    if folder in ("engine", "kernels"):
        for number, line in enumerate(code_of(text).split("\n"), 1):
            match = BANNED.search(line)
            if match:
                found.append(f"{path}:{number}: '{match.group().strip('( ')}' is not allowed in {folder}/")
    if folder in ("engine", "server", "kernels") and path not in WALL_CLOCK_FILES:
        for number, line in enumerate(code_of(text).split("\n"), 1):
            match = WALL_CLOCK.search(line)
            if match:
                found.append(f"{path}:{number}: '{match.group()}' goes by the wall clock; see engine/monotonic.h")
    limit = KERNEL_LIMIT if folder == "kernels" or path.endswith((".cu", ".cuh")) else HOST_LIMIT
    if len(lines) > limit:
        found.append(f"{path}: {len(lines)} lines, the limit is {limit}")
    return found


def check_tree(root):
    found, num_files = [], 0
    paths = []
    for top in sorted(pathlib.Path(root).iterdir()):
        if top.name not in ("build", ".git"):
            paths += sorted(top.rglob("*")) if top.is_dir() else [top]
    for path in paths:
        relative = path.relative_to(root).as_posix()
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        num_files += 1
        folder = relative.split("/")[0]
        if folder not in ALLOWED:
            found.append(f"{relative}: no C++ belongs there; folders are {', '.join(sorted(ALLOWED))}")
        else:
            found += check_file(relative, path.read_text(encoding="utf-8"))
    return found, num_files


def self_test():
    bad = [
        ("kernels/a.cc", '#include "engine/request.h"\n', "must not include"),
        ("engine/a.cc", '#  include "server/core/limits.h"\n', "must not include"),
        ("engine/a.cc", "#include <sessa/v1/generation.pb.h>\n", "must not include"),
        ("loadtest/a.cc", '#include "engine/engine.h"\n', "must not include"),
        ("server/jinja/a.cc", '#include "server/tokenizer/utf8.h"\n', "stands alone"),
        ("proto/a.h", '#include "kernels/tensor.h"\n', "must not include"),
        ("server/a.cc", '#include "tests/reference/model.h"\n', "must not include"),
        ("server/a.cc", '#include "loadtest/mix.h"\n', "must not include"),
        ("engine/scheduler_commit.cc", "if (config.family == kMamba2) {}\n", "names a family"),
        ("engine/scheduler.h", '#include "engine/models/llama_model.h"\n', "names a family"),
        ("engine/state_ledger.cc", "// Feedback state needs no slot.\n", "names a family"),
        ("engine/step_plan.h", "namespace sessa {\nstruct SessaRows;\n}  // namespace sessa\n", "step_plan.h:2: 'Sessa'"),
        ("engine/a.cc", "int F() {\n  throw 1;\n}\n", "a.cc:2: 'throw'"),
        ("kernels/cpu/a.cc", 'auto* p = std::getenv("X");\n', "'getenv'"),
        ("kernels/cpu/a.cc", "/* fine */ const char* p = secure_getenv (n);\n", "getenv"),
        ("engine/a.cc", 'R"(quiet)"; throw 2;\n', "'throw'"),
        ("engine/a.cc", "const int n = 1'000'000; throw n;  // it's\n", "'throw'"),
        ("engine/a.cc", "auto now = absl::Now();\n", "wall clock"),
        ("server/a.cc", "mutex.AwaitWithTimeout(c, t);\n", "wall clock"),
        ("server/a.cc", "done.WaitForNotificationWithTimeout(t);\n", "wall clock"),
        ("server/a.cc", "std::chrono::system_clock::now();\n", "wall clock"),
        ("server/a.cc", "\n" * 401, "401 lines, the limit is 400"),
        ("kernels/a.cc", "\n" * 501, "501 lines, the limit is 500"),
        ("docs/a.cc", "\n", "no C++ belongs there"),
    ]
    good = [
        ("engine/a.cc", '#include "kernels/tensor.h"\n#include <vector>\n// never throw, no getenv(\n'),
        ("engine/b.cc", 'const char* text = "throw getenv(";\nint thrown = 0; int my_throw_count;\n/* throw\n */\n'),
        ("server/a.cc", '#include "engine/engine.h"\n#include "sessa/v1/generation.pb.h"\nthrow 1;\n'),
        ("tests/a.cc", '#include "server/core/limits.h"\n#include "kernels/tensor.h"\n'),
        ("loadtest/a.cc", '#include "sessa/v1/generation.grpc.pb.h"\n'),
        ("server/jinja/a.cc", '#include "server/jinja/value.h"\n'),
        ("server/core/access_log.h", "absl::Time time = absl::Now();\n"),
        ("engine/scheduler.cc", "namespace sessa {\n}  // namespace sessa\n"),
        ("engine/models/decoder.cc", "namespace sessa {\nclass SessaModel;\n}  // namespace sessa\n"),
        ("tests/b.cc", "absl::Now();\n"),
        ("server/b.cc", "\n" * 400),
        ("kernels/a.cc", "\n" * 500),
        ("build/gen/a.cc", "\n" * 9000),
    ]
    failures = []
    for path, text, expected in [(p, t, None) for p, t in good] + bad:
        with tempfile.TemporaryDirectory() as root:
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            found, _ = check_tree(root)
        right = not found if expected is None else len(found) == 1 and expected in found[0]
        if not right:
            failures.append(f"{path} {text[:60]!r}: expected {expected!r}, found {found}")
    return failures, len(good) + len(bad)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: layering_test.py ROOT | --self-test")
    failures, count = self_test() if sys.argv[1] == "--self-test" else check_tree(sys.argv[1])
    for failure in failures:
        print(failure)
    if count < 8:
        sys.exit(f"only {count} files were looked at: is that the root of the tree?")
    if failures:
        sys.exit(f"{len(failures)} violations in {count} files")
    print(f"{count} checked, no violations")


if __name__ == "__main__":
    main()
