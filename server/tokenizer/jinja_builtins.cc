#include "server/tokenizer/jinja_builtins.h"

#include <string.h>

#include <algorithm>
#include <bitset>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sessa::jinja {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";

std::string_view Strip(std::string_view s, std::string_view of, bool left, bool right) {
  std::bitset<256> set;  // linear, however many bytes `of` has
  for (char c : of) set.set(static_cast<unsigned char>(c));
  const auto goes = [&set](char c) { return set.test(static_cast<unsigned char>(c)); };
  while (left && !s.empty() && goes(s.front())) s.remove_prefix(1);
  while (right && !s.empty() && goes(s.back())) s.remove_suffix(1);
  return s;
}

// Linear whatever the strings are, as string::find is not.
size_t FindText(std::string_view in, std::string_view what, size_t from) {
  const void* found = memmem(in.data() + from, in.size() - from, what.data(), what.size());
  return found == nullptr ? std::string_view::npos : static_cast<const char*>(found) - in.data();
}

void AppendReplaced(std::string_view s, std::string_view from, std::string_view to, TextBuilder* out) {
  if (from.empty()) return out->Append(s);
  for (size_t at = 0;;) {
    const size_t next = FindText(s, from, at);
    out->Append(s.substr(at, next - at));
    if (next == std::string_view::npos) return;
    out->Append(to);
    at = next + from.size();
  }
}

Value Split(std::string_view s, std::string_view by, Budget* budget) {
  ListBuilder out(budget);
  if (!by.empty()) {
    for (size_t at = 0; budget->ok();) {
      const size_t next = FindText(s, by, at);
      out.Append(budget->Text(s.substr(at, next - at)));
      if (next == std::string_view::npos) break;
      at = next + by.size();
    }
    return out.Finish();
  }
  for (size_t at = s.find_first_not_of(kSpace); at != std::string_view::npos && budget->ok();) {
    const size_t end = std::min(s.find_first_of(kSpace, at), s.size());
    out.Append(budget->Text(s.substr(at, end - at)));
    at = s.find_first_not_of(kSpace, end);
  }
  return out.Finish();
}

// A copy of `s`, each byte through `change`. ASCII letters only: what templates apply it to are role names.
Value Mapped(std::string_view s, Budget* budget, const std::function<char(char)>& change) {
  TextBuilder out(budget);
  budget->StepBytes(static_cast<int64_t>(s.size()) * 4);  // a call for each byte
  char buffer[1024];
  for (size_t at = 0; at < s.size() && budget->ok();) {
    const size_t n = std::min(sizeof(buffer), s.size() - at);
    std::transform(s.begin() + at, s.begin() + at + n, buffer, change);
    out.Append({buffer, n});
    at += n;
  }
  return out.Finish();
}
char Upper(char c) { return absl::ascii_toupper(static_cast<unsigned char>(c)); }
char Lower(char c) { return absl::ascii_tolower(static_cast<unsigned char>(c)); }
Value Title(std::string_view s, bool every_word, Budget* budget) {
  bool start = true;
  return Mapped(s, budget, [&start, every_word](char c) {
    const char changed = start ? Upper(c) : Lower(c);
    start = every_word && !absl::ascii_isalpha(static_cast<unsigned char>(c));
    return changed;
  });
}

// Python's repr, for what is inside of lists and mappings.
void AppendRepr(const Value& v, Budget* budget, TextBuilder* out) {
  if (!budget->ok()) return;
  const char* separator = "";
  if (const std::string* text = v.text()) {
    out->Append("'");
    for (size_t at = 0; budget->ok();) {
      const size_t next = text->find_first_of("\\'", at);
      out->Append(std::string_view(*text).substr(at, next - at));
      if (next == std::string::npos) break;
      out->Append((*text)[next] == '\'' ? "\\'" : "\\\\");
      at = next + 1;
    }
    out->Append("'");
  } else if (const List* list = v.list()) {
    out->Append("[");
    for (const Value& item : *list) {
      if (!budget->ok()) return;
      out->Append(std::exchange(separator, ", "));
      AppendRepr(item, budget, out);
    }
    out->Append("]");
  } else if (const Dict* dict = v.dict()) {
    out->Append("{");
    for (const auto& [key, item] : *dict) {
      if (!budget->ok()) return;
      out->Append(std::exchange(separator, ", "));
      AppendRepr(budget->Text(key), budget, out);
      out->Append(": ");
      AppendRepr(item, budget, out);
    }
    out->Append("}");
  } else {
    AppendText(v, budget, out);
  }
}

bool CallMethodOfDict(std::string_view name, const Dict& dict, const std::vector<Value>& arguments,
                      Budget* budget, Value* result) {
  if (name == "get" && !arguments.empty() && arguments[0].text() != nullptr) {
    budget->Step(static_cast<int64_t>(dict.size()));
    const Value* found = Find(dict, *arguments[0].text());
    *result = found != nullptr ? *found : arguments.size() > 1 ? arguments[1] : Value::None();
    return true;
  }
  if (name != "keys" && name != "values" && name != "items") return false;
  ListBuilder out(budget);
  for (const auto& [key, value] : dict) {
    if (!budget->ok()) break;
    if (name == "keys") out.Append(budget->Text(key));
    if (name == "values") out.Append(value);
    if (name == "items") out.Append(budget->MakeList({budget->Text(key), value}));
  }
  *result = out.Finish();
  return true;
}

}  // namespace

bool Truth(const Value& v) {
  if (v.boolean() != nullptr) return *v.boolean();
  if (v.is_number()) return v.AsReal() != 0;
  if (v.text() != nullptr) return !v.text()->empty();
  if (v.list() != nullptr) return !v.list()->empty();
  return v.dict() != nullptr && !v.dict()->empty();
}

void AppendText(const Value& v, Budget* budget, TextBuilder* out) {
  if (!v.is_defined()) return;
  if (v.text() != nullptr) return out->Append(*v.text());
  if (v.is_none()) return out->Append("None");
  if (v.boolean() != nullptr) return out->Append(*v.boolean() ? "True" : "False");
  if (v.integer() != nullptr) return out->Append(absl::StrCat(*v.integer()));
  if (v.real() != nullptr) return out->Append(absl::StrCat(*v.real()));
  AppendRepr(v, budget, out);
}

Value ToText(const Value& v, Budget* budget) {
  if (v.text() != nullptr) return v;
  TextBuilder out(budget);
  AppendText(v, budget, &out);
  return out.Finish();
}

bool Equal(const Value& a, const Value& b, Budget* budget) {
  if (!budget->Step()) return false;
  const auto number = [](const Value& v) { return v.is_number() || v.boolean() != nullptr; };
  if (number(a) && number(b)) {
    if (a.integer() != nullptr && b.integer() != nullptr) return *a.integer() == *b.integer();
    const auto of = [](const Value& v) {
      return v.boolean() != nullptr ? (*v.boolean() ? 1.0 : 0.0) : v.AsReal();
    };
    return of(a) == of(b);
  }
  if (a.text() != nullptr && b.text() != nullptr) {
    return a.text()->size() == b.text()->size() &&
           budget->StepBytes(static_cast<int64_t>(a.text()->size())) && *a.text() == *b.text();
  }
  if (a.list() != nullptr && b.list() != nullptr) {
    return std::equal(a.list()->begin(), a.list()->end(), b.list()->begin(), b.list()->end(),
                      [budget](const Value& x, const Value& y) { return Equal(x, y, budget); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    return a.dict()->size() == b.dict()->size() &&
           std::all_of(a.dict()->begin(), a.dict()->end(), [&](const auto& entry) {
             const Value* other = budget->Step(static_cast<int64_t>(b.dict()->size()))
                                      ? Find(*b.dict(), entry.first)
                                      : nullptr;
             return other != nullptr && Equal(entry.second, *other, budget);
           });
  }
  return (a.is_none() && b.is_none()) || (!a.is_defined() && !b.is_defined());
}

bool Contains(const Value& in, const Value& what, Budget* budget) {
  if (!in.is_defined() || !what.is_defined()) return false;
  if (in.text() != nullptr && what.text() != nullptr) {
    return budget->StepBytes(static_cast<int64_t>(in.text()->size() + what.text()->size())) &&
           FindText(*in.text(), *what.text(), 0) != std::string::npos;
  }
  if (in.dict() != nullptr && what.text() != nullptr) {
    return budget->Step(static_cast<int64_t>(in.dict()->size())) && Find(*in.dict(), *what.text()) != nullptr;
  }
  if (in.list() != nullptr) {
    return std::any_of(in.list()->begin(), in.list()->end(),
                       [&](const Value& v) { return Equal(v, what, budget); });
  }
  budget->Fail("'in' needs a string, a list or a mapping");
  return false;
}

bool CallMethod(std::string_view name, const Value& of, const std::vector<Value>& arguments, Budget* budget,
                Value* result) {
  if (of.dict() != nullptr) return CallMethodOfDict(name, *of.dict(), arguments, budget, result);
  if (of.text() == nullptr) return false;
  const std::string_view s = *of.text();
  const std::string* argument = arguments.empty() ? nullptr : arguments[0].text();
  if (!arguments.empty() && argument == nullptr) return false;
  const std::string_view a = argument != nullptr ? std::string_view(*argument) : kSpace;
  if (!budget->StepBytes(static_cast<int64_t>(s.size() + a.size()))) return true;
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const std::string_view stripped = Strip(s, a, name != "rstrip", name != "lstrip");
    return *result = stripped.size() == s.size() ? of : budget->Text(stripped), true;
  }
  if (name == "upper") return *result = Mapped(s, budget, Upper), true;
  if (name == "lower") return *result = Mapped(s, budget, Lower), true;
  if (name == "title") return *result = Title(s, true, budget), true;
  if (name == "capitalize") return *result = Title(s, false, budget), true;
  if (name == "split") return *result = Split(s, argument != nullptr ? a : "", budget), true;
  if (argument == nullptr) return false;
  if (name == "startswith") return *result = Value(s.starts_with(a)), true;
  if (name == "endswith") return *result = Value(s.ends_with(a)), true;
  if (name == "replace" && arguments.size() == 2 && arguments[1].text() != nullptr) {
    TextBuilder out(budget);
    AppendReplaced(s, a, *arguments[1].text(), &out);
    return *result = out.Finish(), true;
  }
  return false;
}

bool CallFilter(std::string_view name, const Value& of, const std::vector<Value>& arguments, Budget* budget,
                Value* result) {
  if (name == "default" || name == "d") {
    const bool replace = arguments.size() > 1 && Truth(arguments[1]) ? !Truth(of) : !of.is_defined();
    *result = !replace ? of : arguments.empty() ? budget->Text("") : arguments[0];
    return true;
  }
  if (name == "trim")
    return CallMethod("strip", ToText(of, budget), arguments, budget, result) || !budget->ok();
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize" || name == "replace") {
    return CallMethod(name, ToText(of, budget), arguments, budget, result) || !budget->ok();
  }
  if (name == "string") return *result = ToText(of, budget), true;
  if (name == "safe") return *result = of, true;
  if (name == "items") return CallMethod("items", of, arguments, budget, result);
  if (of.text() == nullptr && of.list() == nullptr && of.dict() == nullptr) return false;
  if (name == "length" || name == "count") return *result = Value(Length(of, budget)), true;
  if (of.list() == nullptr) return false;
  const List& list = *of.list();
  if (name == "list") return *result = of, true;
  if (name == "first") return *result = list.empty() ? Value() : list.front(), true;
  if (name == "last") return *result = list.empty() ? Value() : list.back(), true;
  if (name == "join") {
    TextBuilder out(budget);
    for (size_t i = 0; i < list.size() && budget->ok(); ++i) {
      if (i > 0 && !arguments.empty()) AppendText(arguments[0], budget, &out);
      AppendText(list[i], budget, &out);
    }
    return *result = out.Finish(), true;
  }
  return false;
}

bool CallTest(std::string_view name, const Value& of, bool* result) {
  if (name == "defined") return *result = of.is_defined(), true;
  if (name == "undefined") return *result = !of.is_defined(), true;
  if (name == "none") return *result = of.is_none(), true;
  if (name == "string") return *result = of.text() != nullptr, true;
  if (name == "mapping") return *result = of.dict() != nullptr, true;
  if (name == "iterable" || name == "sequence")
    return *result = of.list() != nullptr || of.text() != nullptr || of.dict() != nullptr, true;
  if (name == "number") return *result = of.is_number(), true;
  if (name == "boolean") return *result = of.boolean() != nullptr, true;
  if (name == "true" || name == "false")
    return *result = of.boolean() != nullptr && *of.boolean() == (name == "true"), true;
  if (name == "odd" || name == "even") {
    if (of.integer() == nullptr) return false;
    return *result = (*of.integer() % 2 != 0) == (name == "odd"), true;
  }
  return false;
}

}  // namespace sessa::jinja
