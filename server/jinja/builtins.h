// The filters, tests, methods and functions that every template has, in tables by name, and how a call's
// arguments reach them.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "server/jinja/budget.h"
#include "server/jinja/object.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

class Bound;

struct Builtin {
  std::string_view name;
  // Names in order, of which those after "|" may be left out: "old new | count". A leading "/" says that they
  // are taken by position alone, as most of Python's own methods do; "*": whatever there is, not bound.
  std::string_view parameters;
  Value (*call)(const Value& self, const Bound& arguments, Budget* budget);
};

// The arguments of one call by their parameters.
class Bound {
 public:
  static constexpr int kMaxParameters = 6;
  // Fails the budget where Python says that they do not fit.
  Bound(const Builtin& builtin, Arguments arguments, Budget* budget);

  const Arguments& all() const { return all_; }
  bool has(int i) const { return given_[i] != nullptr; }  // it may be none or undefined
  bool has_some(int i) const { return has(i) && !given_[i]->is_none(); }
  const Value& operator[](int i) const { return *given_[i]; }  // Requires: has(i)
  Value ValueOr(int i, Value otherwise) const { return has(i) ? *given_[i] : std::move(otherwise); }
  bool Truth(int i, bool otherwise) const;
  // Fail the budget when it is there and of another kind.
  int64_t Integer(int i, int64_t otherwise) const;
  const std::string& Text(int i) const;

 private:
  void Fail(const Builtin& builtin, std::string_view what);

  Budget* const budget_;
  Arguments all_;
  std::array<const Value*, kMaxParameters> given_{};
};

Value Call(const Builtin& builtin, const Value& self, Arguments arguments, Budget* budget);

// Each gives null where there is none of that name.
const Builtin* FindFilter(std::string_view name);
const Builtin* FindTest(std::string_view name);
const Builtin* FindMethod(const Value& of, std::string_view name);
const Builtin* FindFunction(std::string_view name);
// What Python has and the sandbox keeps from templates, as list.append: undefined, and an error to call.
bool IsForbidden(const Value& of, std::string_view name);

// A table's entries; each file of builtins has one.
struct BuiltinTable {
  const Builtin* begin;
  const Builtin* end;
};
BuiltinTable TextFilters();
BuiltinTable ListFilters();
BuiltinTable ChoiceFilters();
BuiltinTable ValueFilters();
BuiltinTable LayoutFilters();
BuiltinTable MarkupFilters();
BuiltinTable UrlizeFilters();
BuiltinTable TextMethods();
BuiltinTable SearchMethods();  // of text too
BuiltinTable ListMethods();    // of lists, tuples and ranges
BuiltinTable DictMethods();
BuiltinTable Tests();
BuiltinTable Functions();

}  // namespace sessa::jinja
