#include "server/jinja/value.h"

#include "absl/strings/str_cat.h"
#include "server/jinja/budget.h"

namespace sessa::jinja {

Value::Value(std::shared_ptr<Object> v) {
  if (v != nullptr) v_ = std::move(v);  // null: the budget has failed
}

Value Value::Undefined(const std::string* name, bool is_member) {
  Value v;
  v.v_ = Missing(name, is_member);
  return v;
}

Value Value::Literal(std::string text) {
  return Value(std::make_shared<const Node<std::string>>(std::move(text), nullptr, 0, 0));
}

Value Value::MarkupOf(NodePtr<std::string> text) {
  Value v;
  if (text != nullptr) v.v_ = Markup{std::move(text)};
  return v;
}

Value Value::TupleOf(NodePtr<List> items) {
  Value v;
  if (items != nullptr) v.v_ = Tuple{std::move(items)};
  return v;
}

NodePtr<std::string> Value::text_node() const {
  if (const auto* node = std::get_if<NodePtr<std::string>>(&v_)) return *node;
  if (const auto* markup = std::get_if<Markup>(&v_)) return markup->node;
  return nullptr;
}

const std::string* Value::text() const {
  if (const auto* node = std::get_if<NodePtr<std::string>>(&v_)) return &(*node)->data;
  if (const auto* markup = std::get_if<Markup>(&v_)) return &markup->node->data;
  return nullptr;
}

const List* Value::items() const {
  if (const auto* node = std::get_if<NodePtr<List>>(&v_)) return &(*node)->data;
  if (const auto* tuple = std::get_if<Tuple>(&v_)) return &tuple->node->data;
  return nullptr;
}

const Dict* Value::dict() const {
  const auto* node = std::get_if<NodePtr<Dict>>(&v_);
  return node != nullptr ? &(*node)->data : nullptr;
}

std::optional<int64_t> Value::AsInteger() const {
  if (integer() != nullptr) return *integer();
  if (boolean() != nullptr) return *boolean() ? 1 : 0;
  return std::nullopt;
}

double Value::AsReal() const { return real() != nullptr ? *real() : static_cast<double>(*AsInteger()); }

int Value::depth() const {
  if (const auto* node = std::get_if<NodePtr<List>>(&v_)) return (*node)->depth;
  if (const auto* tuple = std::get_if<Tuple>(&v_)) return tuple->node->depth;
  if (const auto* node = std::get_if<NodePtr<Dict>>(&v_)) return (*node)->depth;
  return object() != nullptr ? (*object())->depth() : 0;
}

bool Value::IsSame(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined: return false;  // each is an object of its own
    case Kind::kNone: return true;
    case Kind::kBool: return *boolean() == *other.boolean();
    case Kind::kInteger: return *integer() == *other.integer();  // as it is for small ones
    case Kind::kFloat: return false;
    case Kind::kText:
    case Kind::kMarkup: return text() == other.text();
    case Kind::kList:
    case Kind::kTuple: return items() == other.items();
    case Kind::kDict: return dict() == other.dict();
    case Kind::kObject: return object()->get() == other.object()->get();
  }
  return false;
}

std::string Value::UndefinedMessage() const {
  const auto& missing = std::get<Missing>(v_);
  if (missing.name == nullptr) return "an undefined value is used";
  return missing.is_member ? absl::StrCat("there is no attribute '", *missing.name, "'")
                           : absl::StrCat("'", *missing.name, "' is undefined");
}

std::string TypeName(const Value& v) {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool", "int",   "float",
                                           "str",       "Markup",   "list", "tuple", "dict"};
  if (v.object() != nullptr) return std::string((*v.object())->type());
  return kNames[static_cast<int>(v.kind())];
}

}  // namespace sessa::jinja
