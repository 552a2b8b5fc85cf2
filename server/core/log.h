// The process' own log, on stderr: lines with a time and a level, as text for people or as JSON for machines.
// Who logs never waits for who reads (line_writer.h). Thread-safe.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/line_writer.h"

namespace sessa {

enum class LogLevel { kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogOptions {
  LogFormat format = LogFormat::kText;
  LogLevel least = LogLevel::kInfo;  // what is below is left out
};

LineWriter& StderrLog();
// Before other threads log.
void SetLogOptions(const LogOptions& options);
const LogOptions& log_options();

void Log(absl::string_view message, LogLevel level = LogLevel::kInfo);
// "2026-02-03T04:05:06.789Z warning MESSAGE", or {"time":...,"level":"warning","message":...}; without a
// break.
std::string LogLine(absl::Time time, LogLevel level, absl::string_view message, LogFormat format);

absl::string_view LevelName(LogLevel level);
std::string LogTime(absl::Time time);  // RFC 3339, UTC, milliseconds

inline constexpr size_t kMaxLoggedBytes = 512;  // of a value that a client wrote

// A value of logfmt: as it is when it can be mistaken for nothing else, otherwise quoted and escaped, so that
// what a client wrote stays one field of one line. Cut after kMaxLoggedBytes.
std::string Quoted(absl::string_view value);

}  // namespace sessa
