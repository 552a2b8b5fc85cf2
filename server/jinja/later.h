// What Jinja's filters return that are generator functions in Python: nothing is computed, and nothing can
// fail, until somebody asks for the first item.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "server/jinja/builtins.h"
#include "server/jinja/iterate.h"
#include "server/jinja/object.h"

namespace sessa::jinja {

class Later : public Iterator {
 public:
  Later(const Builtin* now, Value self, Arguments arguments)
      : Iterator(DepthOf(self, arguments)),
        now_(now),
        self_(std::move(self)),
        arguments_(std::move(arguments)) {}

  bool Next(Value* item, Budget* budget) override {
    if (walk_ == nullptr) walk_ = std::make_unique<Walk>(Call(*now_, self_, arguments_, budget), budget);
    return walk_->Next(item);
  }

 private:
  static int DepthOf(const Value& self, const Arguments& arguments) {
    int depth = self.depth();
    for (const Value& v : arguments.positional) depth = std::max(depth, v.depth());
    for (const auto& [name, v] : arguments.named) depth = std::max(depth, v.depth());
    return depth + 1;
  }

  const Builtin* const now_;
  const Value self_;
  const Arguments arguments_;
  std::unique_ptr<Walk> walk_;
};

// A filter that does what `now` does, whose result can be gone over, later.
template <const Builtin* now>
Value Lazily(const Value& self, const Bound& arguments, Budget* budget) {
  return Value(budget->Make<Later>(now, self, arguments.all()));
}

}  // namespace sessa::jinja
