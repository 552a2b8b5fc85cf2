// What `loop` is inside of a for: where it is, how much is left, and, in a recursive one, the loop itself to
// be called.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/object.h"

namespace sessa::jinja {

class LoopContext : public Callable {
 public:
  // `recurse` renders the loop's body for other items, one level deeper; empty unless it is recursive.
  LoopContext(Value over, int depth0, std::function<Value(Value, int)> recurse, Budget* budget);
  std::string_view type() const override { return "LoopContext"; }
  bool Next(Value* item, Budget* budget);
  void Finish() { last_changed_ = List(); }  // it may hold the loop itself

  // loop.name; `self` is the value that holds this. Nothing: it has none of that name.
  std::optional<Value> Attribute(const Value& self, std::string_view name, Budget* budget);
  int64_t Length(Budget* budget);
  bool Changed(const List& values, Budget* budget);
  int64_t index0() const { return index0_; }
  Value Call(Arguments arguments, Budget* budget) override;

 private:
  bool HasNext(Budget* budget);

  const Value over_;
  std::unique_ptr<Walk> walk_;
  const int depth0_;
  const std::function<Value(Value, int)> recurse_;
  int64_t index0_ = -1;
  std::optional<int64_t> length_;
  Value before_, current_, after_;
  bool has_after_ = false, changed_ = false;
  List last_changed_;
};

}  // namespace sessa::jinja
