// Values as Python writes them: str, repr and Hugging Face's tojson.
#pragma once

#include <string>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// The shortest digits that read back as the same number, in Python's form: 1.0, 1e+16, nan.
std::string ReprOf(double x);

void AppendStr(const Value& v, Budget* budget, TextBuilder* out);   // as {{ }} writes it
void AppendRepr(const Value& v, Budget* budget, TextBuilder* out);  // inside of a list
Value Str(const Value& v, Budget* budget);                          // a text stays what it is
Value Repr(const Value& v, Budget* budget);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  bool lines = false;  // with `indent` before each
  std::string indent, item_separator = ", ", key_separator = ": ";
};
void AppendJson(const Value& v, const JsonStyle& style, int level, Budget* budget, TextBuilder* out);

}  // namespace sessa::jinja
