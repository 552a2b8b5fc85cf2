// The operators, filters, tests and methods that chat templates use, with Python's meaning. All of them
// charge the budget for what they read and make; once it has failed they return anything.
#pragma once

#include <string_view>
#include <vector>

#include "server/tokenizer/jinja_budget.h"
#include "server/tokenizer/jinja_value.h"

namespace sessa::jinja {

bool Truth(const Value& v);
// As {{ }} writes it.
void AppendText(const Value& v, Budget* budget, TextBuilder* out);
Value ToText(const Value& v, Budget* budget);
bool Equal(const Value& a, const Value& b, Budget* budget);
bool Contains(const Value& in, const Value& what, Budget* budget);
// Characters of a string, items of the others.
int64_t Length(const Value& v, Budget* budget);

Value Binary(std::string_view op, const Value& a, const Value& b, Budget* budget);
Value Negated(std::string_view op, const Value& v, Budget* budget);  // "-" and "+"
// of[key] and of.key; undefined when there is none.
Value Member(const Value& of, const Value& key, Budget* budget);
// bounds: begin, end and step; undefined where left out.
Value Slice(const Value& of, const Value (&bounds)[3], Budget* budget);
Value Range(const std::vector<Value>& arguments, Budget* budget);

// False: there is no such filter, method or test, or the arguments do not fit.
bool CallFilter(std::string_view name, const Value& of, const std::vector<Value>& arguments, Budget* budget,
                Value* result);
bool CallMethod(std::string_view name, const Value& of, const std::vector<Value>& arguments, Budget* budget,
                Value* result);
bool CallTest(std::string_view name, const Value& of, bool* result);

}  // namespace sessa::jinja
