// See access_log.h.
#include "server/core/access_log.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/core/json_writer.h"

namespace sessa {
namespace {

// The two formats of one line: each field is written by the method that fits what it is.
class TextFields {
 public:
  explicit TextFields(std::string* line) : line_(line) {}
  void Word(absl::string_view name, absl::string_view value) {
    absl::StrAppend(line_, " ", name, "=", Quoted(value));
  }
  void Count(absl::string_view name, int64_t value) { absl::StrAppend(line_, " ", name, "=", value); }
  void Seconds(absl::string_view name, absl::Duration value) {
    absl::StrAppend(line_, " ", name, absl::StrFormat("=%.3f", absl::ToDoubleSeconds(value)));
  }

 private:
  std::string* const line_;
};

class JsonFields {
 public:
  explicit JsonFields(JsonWriter* json) : json_(json) {}
  void Word(absl::string_view name, absl::string_view value) {
    json_->Key(name).String(value.substr(0, kMaxLoggedBytes));
  }
  void Count(absl::string_view name, int64_t value) { json_->Key(name).Int(value); }
  void Seconds(absl::string_view name, absl::Duration value) {
    json_->Key(name).Number(absl::ToDoubleSeconds(absl::Trunc(value, absl::Microseconds(1))));
  }

 private:
  JsonWriter* const json_;
};

LogLevel LevelOf(const AccessRecord& r) {
  return r.status == "500" || r.status == "INTERNAL" || r.status == "UNKNOWN" ? LogLevel::kError
                                                                              : LogLevel::kInfo;
}

template <typename Fields>
void Write(const AccessRecord& r, Fields fields) {
  fields.Word("protocol", r.protocol);
  fields.Word("endpoint", r.endpoint);
  fields.Word("status", r.status);
  fields.Word("request_id", r.request_id);
  if (!r.client.empty()) fields.Word("client", r.client);
  if (!r.tenant.empty()) fields.Word("tenant", r.tenant);
  if (!r.model.empty()) fields.Word("model", r.model);
  fields.Seconds("seconds", r.duration);
  if (r.times.queue.has_value()) fields.Seconds("queue_seconds", *r.times.queue);
  if (r.times.first_token.has_value()) fields.Seconds("ttft_seconds", *r.times.first_token);
  if (r.usage.has_value()) {
    fields.Count("prompt_tokens", r.usage->prompt_tokens);
    fields.Count("cached_tokens", r.usage->cached_tokens);
    fields.Count("completion_tokens", r.usage->completion_tokens);
  }
  if (!r.times.finish.empty()) fields.Word("finish_reason", r.times.finish);
  if (!r.error.empty()) fields.Word("error", r.error);
  if (!r.reason.empty()) fields.Word("reason", r.reason);
}

}  // namespace

std::string FormatAccess(const AccessRecord& record, LogFormat format) {
  std::string line;
  if (format == LogFormat::kText) {
    line = absl::StrCat(LogTime(record.time), " ", LevelName(LevelOf(record)), " request");
    Write(record, TextFields(&line));
    return line;
  }
  JsonWriter json(&line);
  json.BeginObject().Key("time").String(LogTime(record.time)).Key("level").String(LevelName(LevelOf(record)));
  json.Key("message").String("request");
  Write(record, JsonFields(&json));
  json.EndObject();
  return line;
}

void WriteAccess(const AccessRecord& record) {
  if (LevelOf(record) >= log_options().least) StderrLog().Write(FormatAccess(record, log_options().format));
}

}  // namespace sessa
