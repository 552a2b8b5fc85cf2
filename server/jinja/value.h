// What a template computes with: Python's values as Jinja2 sees them. Strings, lists, tuples and mappings are
// immutable and shared, so that handing one on costs nothing, whatever its size (the sandbox that chat
// templates run in forbids changing them); what has a state or a behaviour of its own is an Object
// (object.h). Only a Budget makes them: it knows their bytes until the last holder lets go, and bounds how
// deep they nest, so that walking or freeing one never ends the stack.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sessa::jinja {

class Budget;
class Object;
class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<Value, Value>>;  // in order of insertion, keys differ

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
template <typename T>
using NodePtr = std::shared_ptr<const Node<T>>;

class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kText,
    kMarkup,  // a text that `safe` or `escape` has marked: what is added to it is escaped
    kList,
    kTuple,
    kDict,
    kObject
  };

  Value() {}  // undefined
  explicit Value(bool v) : v_(v) {}
  explicit Value(int64_t v) : v_(v) {}
  explicit Value(double v) : v_(v) {}
  explicit Value(NodePtr<std::string> v) : v_(std::move(v)) {}
  explicit Value(NodePtr<List> v) : v_(std::move(v)) {}
  explicit Value(NodePtr<Dict> v) : v_(std::move(v)) {}
  explicit Value(std::shared_ptr<Object> v);
  explicit Value(const void*) = delete;  // no pointer is a bool
  static Value None() { return Value(nullptr, 0); }
  // `name` is what was looked for; it outlives the value (the syntax tree has it). Null: not known.
  static Value Undefined(const std::string* name, bool is_member);
  static Value Literal(std::string text);  // the parser's
  static Value MarkupOf(NodePtr<std::string> text);
  static Value TupleOf(NodePtr<List> items);

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is_defined() const { return v_.index() != 0; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_markup() const { return kind() == Kind::kMarkup; }
  bool is_tuple() const { return kind() == Kind::kTuple; }
  bool is_number() const { return AsInteger().has_value() || real() != nullptr; }
  // Null when it is of another kind.
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&v_); }
  const double* real() const { return std::get_if<double>(&v_); }
  const std::string* text() const;  // of markup too
  const List* items() const;        // of a list or a tuple
  const Dict* dict() const;
  const std::shared_ptr<Object>* object() const { return std::get_if<std::shared_ptr<Object>>(&v_); }
  template <typename T>
  T* As() const {  // the object, when it is a T
    return object() != nullptr ? dynamic_cast<T*>(object()->get()) : nullptr;
  }
  NodePtr<std::string> text_node() const;

  // True and False are integers too, as in Python.
  std::optional<int64_t> AsInteger() const;
  double AsReal() const;  // Requires: is_number()
  int depth() const;
  bool IsSame(const Value& other) const;  // Python's `is`
  // What an error calls an undefined value.
  std::string UndefinedMessage() const;

 private:
  struct Missing {
    Missing() : name(nullptr), is_member(false) {}
    Missing(const std::string* name, bool is_member) : name(name), is_member(is_member) {}
    const std::string* name;
    bool is_member;
  };
  struct Markup {
    NodePtr<std::string> node;
  };
  struct Tuple {
    NodePtr<List> node;
  };
  Value(std::nullptr_t none, int) : v_(none) {}

  std::variant<Missing, std::nullptr_t, bool, int64_t, double, NodePtr<std::string>, Markup, NodePtr<List>,
               Tuple, NodePtr<Dict>, std::shared_ptr<Object>>
      v_;
};

// As Python calls its type, for errors.
std::string TypeName(const Value& v);

}  // namespace sessa::jinja
