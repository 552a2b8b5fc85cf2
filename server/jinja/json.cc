// See print.h and from_json.h: Python's json.dumps with the parameters that Hugging Face's tojson has, and
// values of a request's JSON.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/jinja/from_json.h"
#include "server/jinja/operators.h"
#include "server/jinja/print.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

namespace bjson = boost::json;

void AppendJsonText(std::string_view text, bool ensure_ascii, TextBuilder* out) {
  out->Append("\"");
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = ensure_ascii ? NextCharacter(text, &at) : static_cast<unsigned char>(text[at++]);
    const bool escaped = c < 0x20 || c == '"' || c == '\\' || (ensure_ascii && c >= 0x7f);
    if (!escaped) continue;
    out->Append(text.substr(plain, begin - plain));
    plain = at;
    static constexpr std::string_view kShort = "\"\\\n\r\t\f\b";
    const size_t known = c < 0x80 ? kShort.find(static_cast<char>(c)) : std::string_view::npos;
    if (known != std::string_view::npos) {
      out->Append(std::string{'\\', "\"\\nrtfb"[known]});
    } else if (c < 0x10000) {
      out->Append(absl::StrFormat("\\u%04x", static_cast<uint32_t>(c)));
    } else {
      const auto over = static_cast<uint32_t>(c) - 0x10000;
      out->Append(absl::StrFormat("\\u%04x\\u%04x", 0xd800 + (over >> 10), 0xdc00 + (over & 0x3ff)));
    }
  }
  out->Append(text.substr(plain));
  out->Append("\"");
}

std::string ScalarJson(const Value& v) {
  if (v.is_none()) return "null";
  if (v.boolean() != nullptr) return *v.boolean() ? "true" : "false";
  if (v.integer() != nullptr) return absl::StrCat(*v.integer());
  const double x = *v.real();
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x < 0 ? "-Infinity" : "Infinity";
  return ReprOf(x);
}

void AppendKey(const Value& key, const JsonStyle& style, Budget* budget, TextBuilder* out) {
  if (key.text() != nullptr) return AppendJsonText(*key.text(), style.ensure_ascii, out);
  if (key.is_none() || key.is_number()) return out->Append(absl::StrCat("\"", ScalarJson(key), "\""));
  budget->Fail(absl::StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
}

void AppendLine(const JsonStyle& style, int level, TextBuilder* out) {
  if (!style.lines) return;
  out->Append("\n");
  for (int i = 0; i < level; ++i) out->Append(style.indent);
}

void AppendMapping(const Dict& dict, const JsonStyle& style, int level, Budget* budget, TextBuilder* out) {
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : dict) entries.push_back(&entry);
  if (style.sort_keys) {
    std::stable_sort(entries.begin(), entries.end(), [budget](const auto* a, const auto* b) {
      return budget->ok() && Order(Operator::kLess, a->first, b->first, budget);
    });
  }
  if (dict.empty()) return out->Append("{}");
  out->Append("{");
  for (size_t i = 0; i < entries.size() && budget->ok(); ++i) {
    if (i > 0) out->Append(style.item_separator);
    AppendLine(style, level + 1, out);
    AppendKey(entries[i]->first, style, budget, out);
    out->Append(style.key_separator);
    AppendJson(entries[i]->second, style, level + 1, budget, out);
  }
  AppendLine(style, level, out);
  out->Append("}");
}

}  // namespace

void AppendJson(const Value& v, const JsonStyle& style, int level, Budget* budget, TextBuilder* out) {
  if (!budget->Step()) return;
  if (v.text() != nullptr) return AppendJsonText(*v.text(), style.ensure_ascii, out);
  if (v.is_none() || v.is_number()) return out->Append(ScalarJson(v));
  if (v.dict() != nullptr) return AppendMapping(*v.dict(), style, level, budget, out);
  if (v.items() == nullptr)
    return budget->Fail(absl::StrCat("Object of type ", TypeName(v), " is not JSON serializable"));
  if (v.items()->empty()) return out->Append("[]");
  out->Append("[");
  for (size_t i = 0; i < v.items()->size() && budget->ok(); ++i) {
    if (i > 0) out->Append(style.item_separator);
    AppendLine(style, level + 1, out);
    AppendJson((*v.items())[i], style, level + 1, budget, out);
  }
  AppendLine(style, level, out);
  out->Append("]");
}

Value FromJson(const bjson::value& json, Budget* budget) {
  if (!budget->Step()) return {};
  switch (json.kind()) {
    case bjson::kind::null: return Value::None();
    case bjson::kind::bool_: return Value(json.get_bool());
    case bjson::kind::int64: return Value(json.get_int64());
    case bjson::kind::uint64: return Value(static_cast<double>(json.get_uint64()));
    case bjson::kind::double_: return Value(json.get_double());
    case bjson::kind::string:
      return budget->Text(std::string_view(json.get_string().data(), json.get_string().size()));
    case bjson::kind::array: {
      ListBuilder list(budget);
      for (const bjson::value& item : json.get_array()) list.Append(FromJson(item, budget));
      return list.Finish();
    }
    case bjson::kind::object: break;
  }
  DictBuilder dict(budget);
  for (const auto& [key, value] : json.get_object())
    dict.Add(std::string_view(key.data(), key.size()), FromJson(value, budget));
  return dict.Finish();
}

}  // namespace sessa::jinja
