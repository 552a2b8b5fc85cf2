// See command_line.h.
#include "flags/command_line.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "flags/version.h"

namespace sessa {
namespace {

constexpr size_t kColumns = 100;
constexpr int kMaxFileDepth = 8;  // of flag files that name others: one that names itself ends too

// `text` in lines of at most kColumns, each after `indent` spaces.
std::string Wrap(absl::string_view text, size_t indent) {
  std::string out;
  size_t column = kColumns;
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column + 1 + word.size() > kColumns) {
      absl::StrAppend(&out, out.empty() ? "" : "\n", std::string(indent, ' '), word);
      column = indent + word.size();
    } else {
      absl::StrAppend(&out, " ", word);
      column += 1 + word.size();
    }
  }
  return out + "\n";
}

std::string HelpText(const Program& program) {
  const std::string first = program.groups[0].flags[0];
  std::string text = absl::StrCat(program.introduction, "A flag may also come from the environment, --",
                                  first, "=X as ", program.environment, absl::AsciiStrToUpper(first),
                                  "=X, or from a file, --flagfile=FILE.\n");
  for (const FlagGroup& group : program.groups) {
    absl::StrAppend(&text, "\n", group.title, "\n");
    for (const char* name : group.flags) {
      const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
      absl::StrAppend(&text, "  --", name, "=", flag->DefaultValue(), "\n", Wrap(flag->Help(), 6));
    }
  }
  return text;
}

// Levenshtein's: how many letters to put in, take out or change.
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t change = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({change, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// The reader of one command line: argv and the files that it names.
class Reader {
 public:
  explicit Reader(const Program& program) : program_(program) {}

  absl::Status ReadEnvironment() {
    for (const FlagGroup& group : program_.groups) {
      for (const char* name : group.flags) {
        const std::string variable = absl::StrCat(program_.environment, absl::AsciiStrToUpper(name));
        const char* value = std::getenv(variable.c_str());
        if (value == nullptr) continue;
        if (absl::Status set = Set(*absl::FindCommandLineFlag(name), value, variable); !set.ok()) return set;
      }
    }
    return absl::OkStatus();
  }

  absl::Status Read(const std::vector<std::string>& words, int depth) {
    for (size_t i = 0; i < words.size() && line_.text.empty(); ++i) {
      absl::string_view word = words[i];
      if (word == "--") {
        line_.arguments.insert(line_.arguments.end(), words.begin() + i + 1, words.end());
        break;
      }
      if (!absl::ConsumePrefix(&word, "-") || word.empty()) {
        line_.arguments.push_back(words[i]);
        continue;
      }
      absl::ConsumePrefix(&word, "-");
      if (absl::Status read = ReadFlag(word, words, &i, depth); !read.ok()) return read;
    }
    return absl::OkStatus();
  }

  CommandLine Take() { return std::move(line_); }

 private:
  // `word` is words[*i] without its dashes; takes the next word too where that is the value.
  absl::Status ReadFlag(absl::string_view word, const std::vector<std::string>& words, size_t* i, int depth) {
    const size_t equals = word.find('=');
    const bool has_value = equals != absl::string_view::npos;
    const std::string name = absl::StrReplaceAll(word.substr(0, equals), {{"-", "_"}});
    std::string value(has_value ? word.substr(equals + 1) : "");
    if (name == "h" || absl::StartsWith(name, "help")) {
      line_.text = HelpText(program_);
      return absl::OkStatus();
    }
    if (name == "version") {
      line_.text = absl::StrCat(program_.name, " ", kVersion, "\n");
      return absl::OkStatus();
    }
    absl::CommandLineFlag* flag = Find(name);
    if (flag == nullptr && !has_value && absl::StartsWith(name, "no")) {
      absl::CommandLineFlag* negated = Find(name.substr(2));
      if (negated != nullptr && negated->IsOfType<bool>()) return Set(*negated, "false", words[*i]);
    }
    if (flag == nullptr && name != "flagfile") return Unknown(name);
    if (!has_value && flag != nullptr && flag->IsOfType<bool>()) {
      value = "true";
    } else if (!has_value) {
      if (*i + 1 == words.size()) return FlagError(name, "a value is missing");
      value = words[++*i];
    }
    return flag == nullptr ? ReadFile(value, depth + 1) : Set(*flag, value, absl::StrCat("--", name));
  }

  absl::Status ReadFile(const std::string& path, int depth) {
    std::ifstream file(path);
    if (!file) return FlagError("flagfile", absl::ErrnoToStatus(errno, path).message());
    if (depth > kMaxFileDepth)
      return FlagError("flagfile", absl::StrCat(path, ": files name each other too deep"));
    std::vector<std::string> words;
    for (std::string line; std::getline(file, line);) {
      const absl::string_view word = absl::StripAsciiWhitespace(line);
      if (!word.empty() && word[0] != '#') words.emplace_back(word);
    }
    return Read(words, depth);
  }

  absl::Status Set(absl::CommandLineFlag& flag, const std::string& value, absl::string_view where) const {
    std::string error;
    if (flag.ParseFrom(value, &error)) return absl::OkStatus();
    // Abseil's text: "Illegal value 'x' specified for flag 'y'", "; " and what the type says.
    const size_t why = error.find("; ");
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": '", value, "' is ", why == std::string::npos ? "no value of it" : error.substr(why + 2)));
  }

  // This program's flag of that name: the registry also has those of the libraries.
  absl::CommandLineFlag* Find(absl::string_view name) const {
    for (const FlagGroup& group : program_.groups) {
      if (std::find(group.flags.begin(), group.flags.end(), name) != group.flags.end())
        return absl::FindCommandLineFlag(name);
    }
    return nullptr;
  }

  absl::Status Unknown(const std::string& name) const {
    absl::string_view nearest;
    size_t least = 1 + name.size() / 3;  // farther ones are no misspelling
    for (const FlagGroup& group : program_.groups) {
      for (const absl::string_view known : group.flags) {
        const size_t distance = Distance(name, known);
        if (distance > least) continue;
        least = distance;
        nearest = known;
      }
    }
    return FlagError(name, nearest.empty() ? "no such flag; --help lists them"
                                           : absl::StrCat("no such flag; the nearest is --", nearest));
  }

  const Program& program_;
  CommandLine line_;
};

}  // namespace

absl::StatusOr<CommandLine> ReadCommandLine(const Program& program, int argc, char** argv) {
  Reader reader(program);
  if (absl::Status read = reader.ReadEnvironment(); !read.ok()) return read;
  if (absl::Status read = reader.Read(std::vector<std::string>(argv + 1, argv + argc), 0); !read.ok())
    return read;
  return reader.Take();
}

absl::Status FlagError(absl::string_view flag, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", message));
}

bool IsGiven(absl::string_view flag) {
  const absl::CommandLineFlag* found = absl::FindCommandLineFlag(flag);
  return found->CurrentValue() != found->DefaultValue();
}

std::map<std::string, std::string> FlagValues(const Program& program) {
  std::map<std::string, std::string> values;
  for (const FlagGroup& group : program.groups) {
    for (const char* name : group.flags) values[name] = absl::FindCommandLineFlag(name)->CurrentValue();
  }
  return values;
}

}  // namespace sessa
