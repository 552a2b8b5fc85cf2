#include "server/jinja/loop.h"

#include "server/jinja/operators.h"

namespace sessa::jinja {
namespace {

Value Cycle(const Value& self, const Bound& args, Budget* budget) {
  const List& values = args.all().positional;
  if (values.empty() || !args.all().named.empty()) {
    budget->Fail("no items for cycling given");
    return {};
  }
  return values[static_cast<size_t>(self.As<LoopContext>()->index0()) % values.size()];
}

Value Changed(const Value& self, const Bound& args, Budget* budget) {
  return Value(self.As<LoopContext>()->Changed(args.all().positional, budget));
}

constexpr Builtin kLoopFunctions[] = {{"cycle", "*", Cycle}, {"changed", "*", Changed}};

}  // namespace

LoopContext::LoopContext(Value over, int depth0, std::function<Value(Value, int)> recurse, Budget* budget)
    : Callable(over.depth() + 1),
      over_(std::move(over)),
      walk_(std::make_unique<Walk>(over_, budget)),
      depth0_(depth0),
      recurse_(std::move(recurse)) {}

bool LoopContext::HasNext(Budget* budget) {
  if (!has_after_) has_after_ = walk_->Next(&after_) && budget->ok();
  return has_after_;
}

bool LoopContext::Next(Value* item, Budget* budget) {
  if (!HasNext(budget)) return false;
  has_after_ = false;
  ++index0_;
  before_ = std::exchange(current_, after_);
  *item = current_;
  return true;
}

int64_t LoopContext::Length(Budget* budget) {
  if (length_.has_value()) return *length_;
  if (HasLength(over_)) {
    length_ = jinja::Length(over_, budget);
  } else {  // what is left of a generator has to be known now
    ListBuilder rest(budget);
    for (Value item; walk_->Next(&item);) rest.Append(item);
    const Value items = rest.Finish();
    if (!budget->ok()) return 0;
    length_ = static_cast<int64_t>(items.items()->size()) + index0_ + 1 + (has_after_ ? 1 : 0);
    walk_ = std::make_unique<Walk>(items, budget);
  }
  return *length_;
}

bool LoopContext::Changed(const List& values, Budget* budget) {
  bool equal = changed_ && values.size() == last_changed_.size();
  for (size_t i = 0; equal && i < values.size(); ++i) {
    equal = values[i].IsSame(last_changed_[i]) || Equal(values[i], last_changed_[i], budget);
  }
  if (equal) return false;
  changed_ = true;
  last_changed_ = values;
  return true;
}

std::optional<Value> LoopContext::Attribute(const Value& self, std::string_view name, Budget* budget) {
  if (name == "index") return Value(index0_ + 1);
  if (name == "index0") return Value(index0_);
  if (name == "first") return Value(index0_ == 0);
  if (name == "last") return Value(!HasNext(budget));
  if (name == "length") return Value(Length(budget));
  if (name == "revindex") return Value(Length(budget) - index0_);
  if (name == "revindex0") return Value(Length(budget) - index0_ - 1);
  if (name == "previtem") return index0_ == 0 ? Value() : before_;
  if (name == "nextitem") return HasNext(budget) ? after_ : Value();
  if (name == "depth") return Value(int64_t{depth0_ + 1});
  if (name == "depth0") return Value(int64_t{depth0_});
  for (const Builtin& function : kLoopFunctions) {
    if (function.name == name) return Value(budget->Make<BoundBuiltin>(&function, self));
  }
  return std::nullopt;
}

Value LoopContext::Call(Arguments arguments, Budget* budget) {
  if (!recurse_) {
    budget->Fail("The loop must have the 'recursive' marker to be called recursively.");
    return {};
  }
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    budget->Fail("a recursive loop takes one argument");
    return {};
  }
  return recurse_(std::move(arguments.positional[0]), depth0_ + 1);
}

}  // namespace sessa::jinja
