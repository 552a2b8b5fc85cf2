// See log.h.
#include "server/core/log.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/core/json_writer.h"

namespace sessa {
namespace {

LogOptions& MutableOptions() {
  static LogOptions options;
  return options;
}

std::string TellOfDropped(int64_t num_dropped) {
  return LogLine(absl::Now(), LogLevel::kWarning, absl::StrCat(num_dropped, " log lines dropped"),
                 log_options().format) +
         "\n";
}

}  // namespace

LineWriter& StderrLog() {
  // Never destroyed: threads may log to the end.
  static LineWriter& log = *new LineWriter(STDERR_FILENO, LineWriter::kMaxBytes, &TellOfDropped);
  return log;
}

void SetLogOptions(const LogOptions& options) { MutableOptions() = options; }
const LogOptions& log_options() { return MutableOptions(); }

void Log(absl::string_view message, LogLevel level) {
  if (level < log_options().least) return;
  StderrLog().Write(LogLine(absl::Now(), level, message, log_options().format));
}

std::string LogLine(absl::Time time, LogLevel level, absl::string_view message, LogFormat format) {
  if (format == LogFormat::kText) return absl::StrCat(LogTime(time), " ", LevelName(level), " ", message);
  std::string line;
  JsonWriter json(&line);
  json.BeginObject().Key("time").String(LogTime(time)).Key("level").String(LevelName(level));
  json.Key("message").String(message).EndObject();
  return line;
}

absl::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kError: return "error";
  }
  return "error";
}

std::string LogTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

std::string Quoted(absl::string_view value) {
  const absl::string_view cut = value.substr(0, kMaxLoggedBytes);
  const auto is_plain = [](char c) { return absl::ascii_isgraph(c) && c != '"' && c != '\\' && c != '='; };
  std::string text;
  if (!cut.empty() && std::all_of(cut.begin(), cut.end(), is_plain)) {
    text = std::string(cut);
  } else {
    text = absl::StrCat("\"", absl::CHexEscape(cut), "\"");
  }
  return cut.size() < value.size() ? absl::StrCat(text, "...") : text;
}

}  // namespace sessa
