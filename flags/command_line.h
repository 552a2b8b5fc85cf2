// What the command lines of our programs have in common, over Abseil's registry of flags: help by topic,
// values from files and from the environment, and errors of one line that name the flag, where its value came
// from and, for a flag that there is none of, the nearest. Abseil's own parser ends the process by itself and
// lists flags by the path of the source, so it is not used. Called by main functions alone, before there are
// other threads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

struct FlagGroup {
  const char* title;
  std::vector<const char*> flags;
};

struct Program {
  const char* name;
  const char* introduction;  // of --help: what it does, examples
  const char*
      environment;  // prefix of variables that stand for flags: "SESSA_" makes SESSA_HTTP_PORT --http_port
  std::vector<FlagGroup> groups;  // every flag of this program, once
};

struct CommandLine {
  std::string text;                    // of --help or --version: print it and exit with 0
  std::vector<std::string> arguments;  // what is no flag
};

// Sets Abseil's flags: from the environment, then from argv (--flag=value, --flag value, --flag and --noflag
// of booleans; dashes may stand for underscores; --flagfile=FILE, lines of flags; -- ends the flags), where
// the last one counts. INVALID_ARGUMENT, or the system's error of a file, when something is wrong.
absl::StatusOr<CommandLine> ReadCommandLine(const Program& program, int argc, char** argv);

absl::Status FlagError(absl::string_view flag, absl::string_view message);
// Whether the flag has another value than its default. Requires: there is such a flag.
bool IsGiven(absl::string_view flag);
// The value of every flag, as it could be given, by name.
std::map<std::string, std::string> FlagValues(const Program& program);

}  // namespace sessa
