#include "server/tokenizer/jinja_builtins.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/utf8.h"

namespace sessa::jinja {
namespace {

namespace json = boost::json;

const json::string* AsString(const Value& v) { return v.has_value() ? v->if_string() : nullptr; }
Value Text(std::string_view s) { return json::value(json::string_view(s.data(), s.size())); }
std::string_view View(const json::string& s) { return {s.data(), s.size()}; }

std::string_view Strip(std::string_view s, std::string_view of, bool left, bool right) {
  if (left) s.remove_prefix(std::min(s.find_first_not_of(of), s.size()));
  if (right) s = s.substr(0, s.find_last_not_of(of) + 1);
  return s;
}

std::string Replace(std::string_view s, std::string_view from, std::string_view to) {
  std::string out;
  if (from.empty()) return std::string(s);
  for (size_t at = 0;;) {
    const size_t next = s.find(from, at);
    out += s.substr(at, next - at);
    if (next == std::string_view::npos) return out;
    out += to;
    at = next + from.size();
  }
}

json::array Split(std::string_view s, const Value& separator) {
  json::array out;
  if (const json::string* by = AsString(separator); by != nullptr && !by->empty()) {
    for (size_t at = 0;;) {
      const size_t next = s.find(View(*by), at);
      out.push_back(*Text(s.substr(at, next - at)));
      if (next == std::string_view::npos) return out;
      at = next + by->size();
    }
  }
  for (size_t at = s.find_first_not_of(" \t\r\n"); at != std::string_view::npos;) {
    const size_t end = std::min(s.find_first_of(" \t\r\n", at), s.size());
    out.push_back(*Text(s.substr(at, end - at)));
    at = s.find_first_not_of(" \t\r\n", end);
  }
  return out;
}

// ASCII letters only: what templates apply it to are role names.
std::string Title(std::string_view s, bool every_word) {
  std::string out = absl::AsciiStrToLower(absl::string_view(s.data(), s.size()));
  bool start = true;
  for (char& c : out) {
    if (start) c = absl::ascii_toupper(static_cast<unsigned char>(c));
    start = every_word && !absl::ascii_isalpha(static_cast<unsigned char>(c));
  }
  return out;
}

int64_t Length(const Value& v) {
  if (v->is_array()) return static_cast<int64_t>(v->as_array().size());
  if (v->is_object()) return static_cast<int64_t>(v->as_object().size());
  int64_t count = 0;
  ForEachCodePoint(View(v->as_string()), [&count](char32_t) { ++count; });
  return count;
}

// Python's repr, for what is inside of lists and mappings.
std::string Repr(const json::value& v) {
  if (v.is_string())
    return absl::StrCat("'", Replace(Replace(View(v.as_string()), "\\", "\\\\"), "'", "\\'"), "'");
  std::string out;
  if (v.is_array()) {
    for (const json::value& item : v.as_array()) absl::StrAppend(&out, out.empty() ? "" : ", ", Repr(item));
    return absl::StrCat("[", out, "]");
  }
  if (v.is_object()) {
    for (const auto& [key, item] : v.as_object())
      absl::StrAppend(&out, out.empty() ? "" : ", ", Repr(json::value(key)), ": ", Repr(item));
    return absl::StrCat("{", out, "}");
  }
  return ToText(v);
}

}  // namespace

bool Truth(const Value& v) {
  if (!v.has_value() || v->is_null()) return false;
  if (v->is_bool()) return v->as_bool();
  if (v->is_number()) return v->to_number<double>() != 0;
  return Length(v) > 0;
}

std::string ToText(const Value& v) {
  if (!v.has_value()) return "";
  if (v->is_null()) return "None";
  if (v->is_bool()) return v->as_bool() ? "True" : "False";
  if (v->is_int64()) return absl::StrCat(v->as_int64());
  if (v->is_uint64()) return absl::StrCat(v->as_uint64());
  if (v->is_double()) return absl::StrCat(v->as_double());
  if (v->is_string()) return std::string(View(v->as_string()));
  return Repr(*v);
}

bool Equal(const Value& a, const Value& b) {
  if (!a.has_value() || !b.has_value()) return a.has_value() == b.has_value();
  const auto number = [](const json::value& v) { return v.is_number() || v.is_bool(); };
  if (number(*a) && number(*b)) {
    const auto of = [](const json::value& v) {
      return v.is_bool() ? (v.as_bool() ? 1.0 : 0.0) : v.to_number<double>();
    };
    return of(*a) == of(*b);
  }
  return *a == *b;
}

bool CallMethod(std::string_view name, const Value& of, const std::vector<Value>& arguments, Value* result) {
  const Value first = arguments.empty() ? Value() : arguments[0];
  if (of.has_value() && of->is_object()) {
    const json::object& object = of->as_object();
    if (name == "get" && AsString(first) != nullptr) {
      const json::value* found = object.if_contains(*AsString(first));
      *result = found != nullptr ? Value(*found) : arguments.size() > 1 ? arguments[1] : Value(nullptr);
      return true;
    }
    json::array out;
    for (const auto& [key, value] : object) {
      if (name == "keys") out.push_back(json::value(key));
      if (name == "values") out.push_back(value);
      if (name == "items") out.push_back(json::array{json::value(key), value});
    }
    *result = std::move(out);
    return name == "keys" || name == "values" || name == "items";
  }
  const json::string* string = AsString(of);
  if (string == nullptr) return false;
  const std::string_view s = View(*string);
  const json::string* argument = AsString(first);
  if (!arguments.empty() && argument == nullptr) return false;
  const std::string_view a = argument != nullptr ? View(*argument) : std::string_view(" \t\r\n\v\f");
  if (name == "strip") return *result = Text(Strip(s, a, true, true)), true;
  if (name == "lstrip") return *result = Text(Strip(s, a, true, false)), true;
  if (name == "rstrip") return *result = Text(Strip(s, a, false, true)), true;
  if (name == "upper")
    return *result = Text(absl::AsciiStrToUpper(absl::string_view(s.data(), s.size()))), true;
  if (name == "lower")
    return *result = Text(absl::AsciiStrToLower(absl::string_view(s.data(), s.size()))), true;
  if (name == "title") return *result = Text(Title(s, true)), true;
  if (name == "capitalize") return *result = Text(Title(s, false)), true;
  if (name == "split") return *result = Split(s, first), true;
  if (argument == nullptr) return false;
  if (name == "startswith") return *result = json::value(s.starts_with(a)), true;
  if (name == "endswith") return *result = json::value(s.ends_with(a)), true;
  if (name == "replace" && arguments.size() == 2 && AsString(arguments[1]) != nullptr) {
    return *result = Text(Replace(s, a, View(*AsString(arguments[1])))), true;
  }
  return false;
}

bool CallFilter(std::string_view name, const Value& of, const std::vector<Value>& arguments, Value* result) {
  if (name == "default" || name == "d") {
    const bool replace = arguments.size() > 1 && Truth(arguments[1]) ? !Truth(of) : !of.has_value();
    *result = replace ? (arguments.empty() ? Text("") : arguments[0]) : of;
    return true;
  }
  if (name == "trim") return CallMethod("strip", Text(ToText(of)), arguments, result);
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize" || name == "replace") {
    return CallMethod(name, Text(ToText(of)), arguments, result);
  }
  if (name == "string") return *result = Text(ToText(of)), true;
  if (name == "safe") return *result = of, true;
  if (name == "items") return CallMethod("items", of, arguments, result);
  if (!of.has_value() || !(of->is_array() || of->is_object() || of->is_string())) return false;
  if (name == "length" || name == "count") return *result = json::value(Length(of)), true;
  if (!of->is_array()) return false;
  const json::array& list = of->as_array();
  if (name == "list") return *result = of, true;
  if (name == "first" || name == "last") {
    *result = list.empty() ? Value() : Value(name == "first" ? list.front() : list.back());
    return true;
  }
  if (name == "join") {
    std::string out;
    for (size_t i = 0; i < list.size(); ++i) {
      absl::StrAppend(&out, i == 0 || arguments.empty() ? "" : ToText(arguments[0]), ToText(list[i]));
    }
    return *result = Text(out), true;
  }
  return false;
}

bool CallTest(std::string_view name, const Value& of, bool* result) {
  const bool there = of.has_value();
  if (name == "defined") return *result = there, true;
  if (name == "undefined") return *result = !there, true;
  if (name == "none") return *result = there && of->is_null(), true;
  if (name == "string") return *result = there && of->is_string(), true;
  if (name == "mapping") return *result = there && of->is_object(), true;
  if (name == "iterable" || name == "sequence")
    return *result = there && (of->is_array() || of->is_string() || of->is_object()), true;
  if (name == "number") return *result = there && of->is_number(), true;
  if (name == "boolean") return *result = there && of->is_bool(), true;
  if (name == "true" || name == "false")
    return *result = there && of->is_bool() && of->as_bool() == (name == "true"), true;
  if (name == "odd" || name == "even") {
    if (!there || !of->is_int64()) return false;
    return *result = (of->as_int64() % 2 != 0) == (name == "odd"), true;
  }
  return false;
}

}  // namespace sessa::jinja
