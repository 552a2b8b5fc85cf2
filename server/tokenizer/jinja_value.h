// What a chat template computes with. Strings, lists and mappings are immutable and shared, so that handing
// one on costs nothing, whatever its size. Only a Budget makes them: it knows their bytes until the last
// holder lets go, and bounds how deep they nest, so that walking or freeing one never ends the stack.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sessa::jinja {

class Budget;
class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;  // in order of insertion, keys differ

// A string, list or mapping with its account.
template <typename T>
struct Node {
  Node(T data, Budget* budget, int64_t num_bytes, int depth)
      : data(std::move(data)), budget(budget), num_bytes(num_bytes), depth(depth) {}
  ~Node();  // gives the bytes back
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const T data;
  Budget* const budget;  // null: a literal, which is the template's
  const int64_t num_bytes;
  const int depth;  // 0: nothing inside
};

class Value {
 public:
  Value() = default;  // undefined
  explicit Value(bool v) : v_(v) {}
  explicit Value(int64_t v) : v_(v) {}
  explicit Value(double v) : v_(v) {}
  explicit Value(std::shared_ptr<const Node<std::string>> v) : v_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Node<List>> v) : v_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Node<Dict>> v) : v_(std::move(v)) {}
  Value(const void*) = delete;  // no pointer is a bool
  static Value None() { return Value(nullptr, 0); }
  static Value Literal(std::string text);  // the parser's

  bool is_defined() const { return v_.index() != 0; }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(v_); }
  bool is_number() const { return integer() != nullptr || real() != nullptr; }
  // Null when it is of another kind.
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&v_); }
  const double* real() const { return std::get_if<double>(&v_); }
  const std::string* text() const { return DataOf<std::string>(); }
  const List* list() const { return DataOf<List>(); }
  const Dict* dict() const { return DataOf<Dict>(); }

  int depth() const {
    if (const auto* node = std::get_if<std::shared_ptr<const Node<List>>>(&v_)) return (*node)->depth;
    if (const auto* node = std::get_if<std::shared_ptr<const Node<Dict>>>(&v_)) return (*node)->depth;
    return 0;
  }
  // Of a number.
  double AsReal() const { return real() != nullptr ? *real() : static_cast<double>(*integer()); }

 private:
  Value(std::nullptr_t none, int) : v_(none) {}
  template <typename T>
  const T* DataOf() const {
    const auto* node = std::get_if<std::shared_ptr<const Node<T>>>(&v_);
    return node != nullptr ? &(*node)->data : nullptr;
  }

  std::variant<std::monostate, std::nullptr_t, bool, int64_t, double,
               std::shared_ptr<const Node<std::string>>, std::shared_ptr<const Node<List>>,
               std::shared_ptr<const Node<Dict>>>
      v_;
};

// Null: there is no such key.
const Value* Find(const Dict& dict, std::string_view key);

}  // namespace sessa::jinja
