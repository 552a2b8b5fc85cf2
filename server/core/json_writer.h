// Writes JSON straight into a string: shortest numbers, strings always valid UTF-8 (what is not becomes
// U+FFFD). The caller nests Begin and End rightly; commas are the writer's.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sessa {

class JsonWriter {
 public:
  // Appends to `out`, which outlives this.
  explicit JsonWriter(std::string* out) : out_(out) {}

  JsonWriter& BeginObject() { return Begin('{'); }
  JsonWriter& EndObject() { return End('}'); }
  JsonWriter& BeginArray() { return Begin('['); }
  JsonWriter& EndArray() { return End(']'); }
  JsonWriter& Key(absl::string_view name);
  JsonWriter& String(absl::string_view value);
  JsonWriter& Int(int64_t value);
  // A logprob of -inf is written as -9999, as OpenAI does; JSON has no other word for it.
  JsonWriter& Float(float value);
  JsonWriter& Number(double value);
  JsonWriter& Bool(bool value) { return Raw(value ? "true" : "false"); }
  JsonWriter& Null() { return Raw("null"); }

 private:
  JsonWriter& Raw(absl::string_view text);
  JsonWriter& Begin(char bracket);
  JsonWriter& End(char bracket);
  void Comma();
  void Quote(absl::string_view value);

  std::string* const out_;
  bool comma_ = false;
};

}  // namespace sessa
