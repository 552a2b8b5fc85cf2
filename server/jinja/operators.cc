// Truth, equality, order and membership; numbers are in arithmetic.cc.
#include "server/jinja/operators.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/jinja/iterate.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

using Kind = Value::Kind;

template <typename T>
bool Holds(Operator op, const T& a, const T& b) {
  switch (op) {
    case Operator::kLess: return a < b;
    case Operator::kLessEqual: return a <= b;
    case Operator::kGreater: return a > b;
    default: return a >= b;
  }
}

// An integer and a real compare as what they are: x86's long double holds both exactly.
template <typename Compare>
bool Numbers(const Value& a, const Value& b, Compare compare) {
  const auto x = a.AsInteger(), y = b.AsInteger();
  if (x.has_value() && y.has_value()) return compare(*x, *y);
  const auto exact = [](const Value& v) -> long double {
    return v.real() != nullptr ? *v.real() : static_cast<long double>(*v.AsInteger());
  };
  return compare(exact(a), exact(b));
}

bool EqualLists(const List& a, const List& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].IsSame(b[i]) && !Equal(a[i], b[i], budget)) return false;
  }
  return true;
}

bool EqualDicts(const Dict& a, const Dict& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a) {
    const size_t at = FindKey(b, key, budget);
    if (at == b.size() || !budget->ok() || !Equal(value, b[at].second, budget)) return false;
  }
  return true;
}

bool EqualObjects(const Value& a, const Value& b, Budget* budget) {
  if (a.IsSame(b)) return true;
  const auto *x = a.As<Range>(), *y = b.As<Range>();
  if (x != nullptr && y != nullptr) {
    return x->length == y->length &&
           (x->length == 0 || (x->start == y->start && (x->length == 1 || x->step == y->step)));
  }
  // Views of keys and items are sets; those of values are equal to themselves alone.
  const auto *v = a.As<DictView>(), *w = b.As<DictView>();
  if (v == nullptr || w == nullptr || v->what == DictView::What::kValues ||
      w->what == DictView::What::kValues || Length(a, budget) != Length(b, budget))
    return false;
  Walk walk(a, budget);
  for (Value item; walk.Next(&item);) {
    if (!Contains(b, item, budget)) return false;
  }
  return budget->ok();
}

}  // namespace

std::string_view NameOf(Operator op) {
  static constexpr std::string_view kNames[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kNames[static_cast<int>(op)];
}

bool Truth(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool: return *v.boolean();
    case Kind::kInteger: return *v.integer() != 0;
    case Kind::kFloat: return *v.real() != 0;
    case Kind::kText:
    case Kind::kMarkup: return !v.text()->empty();
    case Kind::kList:
    case Kind::kTuple: return !v.items()->empty();
    case Kind::kDict: return !v.dict()->empty();
    case Kind::kObject: break;
  }
  if (const auto* range = v.As<Range>()) return range->length != 0;
  if (const auto* view = v.As<DictView>()) return !view->dict.dict()->empty();
  return true;
}

bool Equal(const Value& a, const Value& b, Budget* budget) {
  if (!budget->Step()) return false;
  if (a.is_number() && b.is_number()) return Numbers(a, b, [](auto x, auto y) { return x == y; });
  if (a.text() != nullptr && b.text() != nullptr) {
    if (a.text()->size() != b.text()->size()) return false;
    return budget->StepBytes(static_cast<int64_t>(a.text()->size())) && *a.text() == *b.text();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kList:
    case Kind::kTuple: return EqualLists(*a.items(), *b.items(), budget);
    case Kind::kDict: return EqualDicts(*a.dict(), *b.dict(), budget);
    default: return EqualObjects(a, b, budget);
  }
}

bool Order(Operator op, const Value& a, const Value& b, Budget* budget) {
  if (!budget->Step()) return false;
  if (a.is_number() && b.is_number()) return Numbers(a, b, [op](auto x, auto y) { return Holds(op, x, y); });
  if (a.text() != nullptr && b.text() != nullptr) {  // the order of UTF-8's bytes is that of the characters
    const size_t size = std::min(a.text()->size(), b.text()->size());
    return budget->StepBytes(static_cast<int64_t>(size)) && Holds(op, *a.text(), *b.text());
  }
  if (a.items() != nullptr && a.kind() == b.kind()) {
    const List &x = *a.items(), &y = *b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()) && budget->ok(); ++i) {
      if (!Equal(x[i], y[i], budget)) return budget->ok() && Order(op, x[i], y[i], budget);
    }
    return Holds(op, x.size(), y.size());
  }
  for (const Value* v : {&a, &b}) {
    if (!v->is_defined()) return budget->Fail(v->UndefinedMessage()), false;
  }
  budget->Fail(absl::StrCat("'", View(NameOf(op)), "' not supported between instances of '", TypeName(a),
                            "' and '", TypeName(b), "'"));
  return false;
}

bool Contains(const Value& in, const Value& what, Budget* budget) {
  if (!budget->Step()) return false;
  if (in.text() != nullptr) {
    if (what.text() != nullptr) return FindText(*in.text(), *what.text(), budget) != std::string::npos;
    budget->Fail(absl::StrCat("'in <string>' requires string as left operand, not ", TypeName(what)));
    return false;
  }
  const auto* view = in.As<DictView>();
  if (in.dict() != nullptr || (view != nullptr && view->what == DictView::What::kKeys)) {
    const Dict& dict = in.dict() != nullptr ? *in.dict() : *view->dict.dict();
    if (!IsHashable(what)) {
      budget->Fail(absl::StrCat("unhashable type: '", TypeName(what), "'"));
      return false;
    }
    return FindKey(dict, what, budget) < dict.size();
  }
  Walk walk(in, budget);
  for (Value item; walk.Next(&item);) {
    if (item.IsSame(what) || Equal(item, what, budget)) return budget->ok();
  }
  return false;
}

bool HasLength(const Value& v) {
  return v.text() != nullptr || v.items() != nullptr || v.dict() != nullptr || !v.is_defined() ||
         v.As<Range>() != nullptr || v.As<DictView>() != nullptr;
}

int64_t Length(const Value& v, Budget* budget) {
  if (v.items() != nullptr) return static_cast<int64_t>(v.items()->size());
  if (v.dict() != nullptr) return static_cast<int64_t>(v.dict()->size());
  if (v.text() != nullptr) return CountCharacters(*v.text(), budget);
  if (!v.is_defined()) return 0;
  if (const auto* range = v.As<Range>()) return range->length;
  if (const auto* view = v.As<DictView>()) return static_cast<int64_t>(view->dict.dict()->size());
  budget->Fail(absl::StrCat("object of type '", TypeName(v), "' has no len()"));
  return 0;
}

Value Binary(Operator op, const Value& a, const Value& b, Budget* budget) {
  switch (op) {
    case Operator::kEqual: return Value(Equal(a, b, budget));
    case Operator::kNotEqual: return Value(!Equal(a, b, budget));
    case Operator::kIn: return Value(Contains(b, a, budget));
    case Operator::kNotIn: return Value(!Contains(b, a, budget));
    case Operator::kLess:
    case Operator::kLessEqual:
    case Operator::kGreater:
    case Operator::kGreaterEqual: return Value(Order(op, a, b, budget));
    default: return Arithmetic(op, a, b, budget);
  }
}

bool IsHashable(const Value& v) {
  if (v.kind() == Kind::kList || v.dict() != nullptr) return false;
  if (v.items() == nullptr) return true;
  return std::all_of(v.items()->begin(), v.items()->end(), IsHashable);
}

size_t FindKey(const Dict& dict, const Value& key, Budget* budget) {
  if (key.text() != nullptr) return FindKey(dict, std::string_view(*key.text()), budget);
  for (size_t i = 0; i < dict.size() && budget->ok(); ++i) {
    if (dict[i].first.IsSame(key) || Equal(dict[i].first, key, budget)) return i;
  }
  return dict.size();
}

size_t FindKey(const Dict& dict, std::string_view key, Budget* budget) {
  // Four short keys compare in the time of a step.
  budget->Step(static_cast<int64_t>(dict.size()) / 4);
  for (size_t i = 0; i < dict.size(); ++i) {
    const std::string* text = dict[i].first.text();
    if (text != nullptr && *text == key) {
      budget->StepBytes(static_cast<int64_t>(key.size()));
      return i;
    }
  }
  return dict.size();
}

}  // namespace sessa::jinja
