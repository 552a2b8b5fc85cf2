// See json_writer.h.
#include "server/core/json_writer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

template <typename T>
void AppendNumber(T value, std::string* out) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  out->append(buffer, end);
}

}  // namespace

void JsonWriter::Comma() {
  if (comma_) out_->push_back(',');
  comma_ = true;
}

JsonWriter& JsonWriter::Raw(absl::string_view text) {
  Comma();
  out_->append(text.data(), text.size());
  return *this;
}

JsonWriter& JsonWriter::Begin(char bracket) {
  Comma();
  out_->push_back(bracket);
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::End(char bracket) {
  out_->push_back(bracket);
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::Key(absl::string_view name) {
  Comma();
  Quote(name);
  out_->push_back(':');
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::String(absl::string_view value) {
  Comma();
  const std::string_view text(value.data(), value.size());
  if (FindInvalidUtf8(text) == std::string_view::npos) {
    Quote(value);
  } else {
    Quote(RepairUtf8(text));
  }
  return *this;
}

JsonWriter& JsonWriter::Int(int64_t value) {
  Comma();
  AppendNumber(value, out_);
  return *this;
}

JsonWriter& JsonWriter::Float(float value) {
  Comma();
  AppendNumber(std::isnan(value) ? -9999.0f : std::clamp(value, -9999.0f, 9999.0f), out_);
  return *this;
}

JsonWriter& JsonWriter::Number(double value) {
  Comma();
  AppendNumber(std::isfinite(value) ? value : 0.0, out_);
  return *this;
}

void JsonWriter::Quote(absl::string_view value) {
  out_->push_back('"');
  for (const char c : value) {
    switch (c) {
      case '"': out_->append("\\\""); break;
      case '\\': out_->append("\\\\"); break;
      case '\n': out_->append("\\n"); break;
      case '\r': out_->append("\\r"); break;
      case '\t': out_->append("\\t"); break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(out_, "\\u%04x", c);
        } else {
          out_->push_back(c);
        }
    }
  }
  out_->push_back('"');
}

}  // namespace sessa
