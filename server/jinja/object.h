// Values with a state or a behaviour of their own. A Budget makes them (Budget::Make) and counts their bytes;
// all of one rendering are on one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/jinja/value.h"

namespace sessa::jinja {

class Object {
 public:
  // `depth`: of what is inside, and one.
  explicit Object(int depth) : depth_(depth) {}
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  virtual std::string_view type() const = 0;  // as Python calls it
  int depth() const { return depth_; }

 private:
  friend class Budget;
  const int depth_;
  Budget* budget_ = nullptr;
  int64_t num_bytes_ = 0;
};

// What a call brings.
struct Arguments {
  List positional;
  std::vector<std::pair<std::string, Value>> named;  // names differ
};

class Callable : public Object {
 public:
  using Object::Object;
  virtual Value Call(Arguments arguments, Budget* budget) = 0;
};

// Python's generators, which `map`, `select` and others return: gone over once, and each item is computed
// only when it is asked for.
class Iterator : public Object {
 public:
  using Object::Object;
  std::string_view type() const override { return "generator"; }
  // False at the end, and once the budget has failed.
  virtual bool Next(Value* item, Budget* budget) = 0;
};

// The one thing that a template can change. It may hold itself, so whoever renders empties all of them at the
// end (`Budget::Make` keeps no list: the evaluator does).
class Namespace : public Object {
 public:
  explicit Namespace(Dict attributes) : Object(0), attributes(std::move(attributes)) {}
  std::string_view type() const override { return "Namespace"; }
  Dict attributes;
};

class Range : public Object {
 public:
  Range(int64_t start, int64_t stop, int64_t step, int64_t length)
      : Object(0), start(start), stop(stop), step(step), length(length) {}
  std::string_view type() const override { return "range"; }
  int64_t At(int64_t i) const { return start + i * step; }
  const int64_t start, stop, step, length;
};

class DictView : public Object {
 public:
  enum class What { kKeys, kValues, kItems };
  DictView(Value dict, What what) : Object(dict.depth() + 1), dict(std::move(dict)), what(what) {}
  std::string_view type() const override {
    return what == What::kKeys ? "dict_keys" : what == What::kValues ? "dict_values" : "dict_items";
  }
  const Value dict;
  const What what;
};

}  // namespace sessa::jinja
