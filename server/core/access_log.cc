// See access_log.h.
#include "server/core/access_log.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/core/json_writer.h"
#include "server/core/log.h"

namespace sessa {
namespace {

constexpr char kTimeFormat[] = "%Y-%m-%dT%H:%M:%E3SZ";

std::string Text(const AccessRecord& r) {
  std::string line =
      absl::StrFormat("time=%s protocol=%s endpoint=%s status=%s request_id=%s seconds=%.3f",
                      absl::FormatTime(kTimeFormat, r.time, absl::UTCTimeZone()), r.protocol,
                      Quoted(r.endpoint), r.status, Quoted(r.request_id), absl::ToDoubleSeconds(r.duration));
  if (r.usage.has_value()) {
    absl::StrAppend(&line, " prompt_tokens=", r.usage->prompt_tokens,
                    " cached_tokens=", r.usage->cached_tokens,
                    " completion_tokens=", r.usage->completion_tokens);
  }
  if (!r.error.empty()) absl::StrAppend(&line, " error=", r.error);
  return line;
}

// What a client wrote, at most so much of it as the text has.
absl::string_view Cut(absl::string_view value) { return value.substr(0, kMaxLoggedBytes); }

std::string Json(const AccessRecord& r) {
  std::string line;
  JsonWriter json(&line);
  json.BeginObject().Key("time").String(absl::FormatTime(kTimeFormat, r.time, absl::UTCTimeZone()));
  json.Key("protocol")
      .String(r.protocol)
      .Key("endpoint")
      .String(Cut(r.endpoint))
      .Key("status")
      .String(r.status);
  json.Key("request_id").String(Cut(r.request_id)).Key("seconds").Number(absl::ToDoubleSeconds(r.duration));
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
  return format == AccessLogFormat::kJson ? Json(record) : Text(record);
}

void WriteAccess(const AccessRecord& record, AccessLogFormat format) {
  if (format != AccessLogFormat::kOff) Log(FormatAccess(record, format));
}

}  // namespace sessa
