// The filters, tests and methods of strings, lists and mappings that chat templates use, with Python's
// meaning.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sessa::jinja {

// None: undefined. JSON's null is Python's None.
using Value = std::optional<boost::json::value>;

bool Truth(const Value& v);
std::string ToText(const Value& v);  // as {{ }} writes it
bool Equal(const Value& a, const Value& b);

// False: there is no such filter, method or test, or the arguments do not fit.
bool CallFilter(std::string_view name, const Value& of, const std::vector<Value>& arguments, Value* result);
bool CallMethod(std::string_view name, const Value& of, const std::vector<Value>& arguments, Value* result);
bool CallTest(std::string_view name, const Value& of, bool* result);

}  // namespace sessa::jinja
