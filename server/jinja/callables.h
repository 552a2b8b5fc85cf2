// What a template can call, but for macros, which are the evaluator's.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "server/jinja/builtins.h"
#include "server/jinja/object.h"

namespace sessa::jinja {

class NamedCallable : public Callable {
 public:
  using Callable::Callable;
  virtual std::string_view name() const = 0;
};

// A function of every template, or a method and what it is of.
class BoundBuiltin : public NamedCallable {
 public:
  BoundBuiltin(const Builtin* builtin, Value self)
      : NamedCallable(self.depth() + 1), builtin_(builtin), self_(std::move(self)) {}
  std::string_view type() const override { return "function"; }
  std::string_view name() const override { return builtin_->name; }
  Value Call(Arguments arguments, Budget* budget) override {
    return jinja::Call(*builtin_, self_, std::move(arguments), budget);
  }

 private:
  const Builtin* const builtin_;
  const Value self_;
};

// Jinja's cycler(a, b, ...): next() gives one after the other, again and again.
class Cycler : public Object {
 public:
  explicit Cycler(Value items) : Object(items.depth() + 1), items(std::move(items)) {}
  std::string_view type() const override { return "Cycler"; }
  const Value items;
  size_t at = 0;
};

const Builtin* FindCyclerMethod(std::string_view name);  // next and reset; null: there is none

// Jinja's joiner(sep): empty the first time, then the separator.
class Joiner : public Callable {
 public:
  explicit Joiner(Value separator) : Callable(separator.depth() + 1), separator_(std::move(separator)) {}
  std::string_view type() const override { return "Joiner"; }
  Value Call(Arguments arguments, Budget* budget) override {
    if (!arguments.positional.empty() || !arguments.named.empty()) budget->Fail("joiner takes no argument");
    return std::exchange(used_, true) ? separator_ : budget->Text("");
  }

 private:
  const Value separator_;
  bool used_ = false;
};

}  // namespace sessa::jinja
