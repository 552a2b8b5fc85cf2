// See access_log.h.
#include "server/core/access_log.h"

#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/core/json_writer.h"

namespace sessa {
namespace {

constexpr char kTimeFormat[] = "%Y-%m-%dT%H:%M:%E3SZ";

std::string Text(const AccessRecord& r) {
  std::string line = absl::StrFormat("%s %s %s %s id=%s seconds=%.3f",
                                     absl::FormatTime(kTimeFormat, r.end, absl::UTCTimeZone()), r.protocol,
                                     absl::CHexEscape(r.endpoint), r.status, absl::CHexEscape(r.request_id),
                                     absl::ToDoubleSeconds(r.end - r.start));
  if (r.usage.has_value()) {
    absl::StrAppend(&line, " prompt_tokens=", r.usage->prompt_tokens,
                    " cached_tokens=", r.usage->cached_tokens,
                    " completion_tokens=", r.usage->completion_tokens);
  }
  if (!r.error.empty()) absl::StrAppend(&line, " error=", r.error);
  return line;
}

std::string Json(const AccessRecord& r) {
  std::string line;
  JsonWriter json(&line);
  json.BeginObject().Key("time").String(absl::FormatTime(kTimeFormat, r.end, absl::UTCTimeZone()));
  json.Key("protocol").String(r.protocol).Key("endpoint").String(r.endpoint).Key("status").String(r.status);
  json.Key("request_id").String(r.request_id).Key("seconds").Number(absl::ToDoubleSeconds(r.end - r.start));
  if (r.usage.has_value()) {
    json.Key("prompt_tokens").Int(r.usage->prompt_tokens).Key("cached_tokens").Int(r.usage->cached_tokens);
    json.Key("completion_tokens").Int(r.usage->completion_tokens);
  }
  if (!r.error.empty()) json.Key("error").String(r.error);
  json.EndObject();
  return line;
}

}  // namespace

std::string FormatAccess(const AccessRecord& record, AccessLogFormat format) {
  return (format == AccessLogFormat::kJson ? Json(record) : Text(record)) + "\n";
}

void WriteAccess(const AccessRecord& record, AccessLogFormat format) {
  if (format == AccessLogFormat::kOff) return;
  const std::string line = FormatAccess(record, format);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace sessa
