// See evaluator.h: expressions.
#include "absl/strings/str_cat.h"
#include "server/jinja/callables.h"
#include "server/jinja/evaluator.h"
#include "server/jinja/iterate.h"
#include "server/jinja/members.h"
#include "server/jinja/print.h"

namespace sessa::jinja {

using E = Expression::Kind;

Value Evaluator::Eval(const Expression& e) {
  Value value;
  if (e.kind == E::kLiteral) {
    Step(e.line);
    return e.literal;
  }
  if (Enter(e.line)) value = Compute(e);
  --depth_;
  return value;
}

Value Evaluator::Compute(const Expression& e) {
  switch (e.kind) {
    case E::kLiteral: return e.literal;
    case E::kName: return Find(e.name);
    case E::kAttribute:
    case E::kItem: return Member(e);
    case E::kSlice: return SliceOf(e);
    case E::kCall: return Call(e, Value());
    case E::kFilter: return Filter(e, nullptr);
    case E::kTest: return Test(e);
    case E::kNot: return Value(!Truth(Eval(*e.children[0])));
    case E::kNegative:
    case E::kPositive: {
      const Value of = Eval(*e.children[0]);
      return budget_->ok() ? Negated(of, e.kind == E::kPositive, budget_) : Value();
    }
    case E::kAnd:
    case E::kOr: {
      Value left = Eval(*e.children[0]);
      return Truth(left) == (e.kind == E::kAnd) ? Eval(*e.children[1]) : left;
    }
    case E::kBinary: {
      const Value left = Eval(*e.children[0]), right = Eval(*e.children[1]);
      budget_->set_line(e.line);
      return budget_->ok() ? Binary(e.operators[0], left, right, budget_) : Value();
    }
    case E::kCompare: return Compare(e);
    case E::kConcat: return Concat(e);
    case E::kTernary:
      if (Truth(Eval(*e.children[1]))) return Eval(*e.children[0]);
      return e.children[2] == nullptr || !budget_->ok() ? Value() : Eval(*e.children[2]);
    case E::kList:
    case E::kTuple: {
      ListBuilder list(budget_);
      for (const auto& child : e.children) list.Append(Eval(*child));
      return e.kind == E::kList ? list.Finish() : list.FinishTuple();
    }
    case E::kDict: return DictOf(e);
  }
  return {};
}

Value Evaluator::Member(const Expression& e) {
  const Value of = Eval(*e.children[0]);
  if (!budget_->ok()) return {};
  if (e.kind == E::kAttribute) {
    budget_->set_line(e.line);
    return Attribute(of, e.name, budget_);
  }
  const Expression& key = *e.children[1];
  const Value at = Eval(key);
  budget_->set_line(e.line);
  // A key that is written in the template lives as long as that, and errors can name it.
  return budget_->ok() ? Item(of, at, key.kind == E::kLiteral ? key.literal.text() : nullptr, budget_)
                       : Value();
}

Value Evaluator::SliceOf(const Expression& e) {
  const Value of = Eval(*e.children[0]);
  Value bounds[3] = {Value::None(), Value::None(), Value::None()};
  for (int i = 0; i < 3; ++i) {
    if (e.children[i + 1] != nullptr) bounds[i] = Eval(*e.children[i + 1]);
  }
  budget_->set_line(e.line);
  return budget_->ok() ? Slice(of, bounds, budget_) : Value();
}

// All of a < b < c: each is looked at once, and what follows the first that does not hold is not.
Value Evaluator::Compare(const Expression& e) {
  Value left = Eval(*e.children[0]);
  Value result;
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = Eval(*e.children[i + 1]);
    budget_->set_line(e.line);
    if (!budget_->ok()) return {};
    result = Binary(e.operators[i], left, right, budget_);
    if (!Truth(result)) break;
    left = std::move(right);
  }
  return result;
}

Value Evaluator::Concat(const Expression& e) {
  List parts;
  for (const auto& child : e.children) parts.push_back(Eval(*child));
  TextBuilder out(budget_);
  for (const Value& part : parts) AppendStr(part, budget_, &out);
  return out.Finish();
}

Value Evaluator::DictOf(const Expression& e) {
  DictBuilder dict(budget_);
  for (size_t i = 0; i + 1 < e.children.size() && budget_->ok(); i += 2) {
    Value key = Eval(*e.children[i]);
    Value value = Eval(*e.children[i + 1]);
    if (budget_->ok()) dict.Put(std::move(key), std::move(value));
  }
  return dict.Finish();
}

Arguments Evaluator::ArgumentsOf(const Expression& e) {
  Arguments out;
  if (e.arguments == nullptr) return out;
  for (const auto& value : e.arguments->positional) out.positional.push_back(Eval(*value));
  if (e.arguments->more != nullptr) {
    Walk walk(Eval(*e.arguments->more), budget_);
    for (Value item; walk.Next(&item);) out.positional.push_back(item);
  }
  for (const auto& [name, value] : e.arguments->named) out.named.emplace_back(*name, Eval(*value));
  if (e.arguments->more_named == nullptr) return out;
  const Value more = Eval(*e.arguments->more_named);
  if (more.dict() == nullptr) {
    Fail(e, absl::StrCat("argument after ** must be a mapping, not ", TypeName(more)));
    return out;
  }
  for (const auto& [key, value] : *more.dict()) {
    if (!budget_->Step(1 + static_cast<int64_t>(out.named.size()) / 4)) break;
    if (key.text() == nullptr) {
      Fail(e, "keywords must be strings");
      break;
    }
    for (const auto& [name, other] : out.named) {
      if (name == *key.text()) Fail(e, absl::StrCat("got multiple values for keyword argument '", name, "'"));
    }
    out.named.emplace_back(*key.text(), value);
  }
  return out;
}

Value Evaluator::Call(const Expression& e, Value caller) {
  const Expression& callee = *e.children[0];
  // Methods and functions are called without making a value of them first.
  const Builtin* builtin = nullptr;
  Value of, function;
  if (callee.kind == E::kAttribute) {
    of = Eval(*callee.children[0]);
    if (!budget_->ok()) return {};
    builtin = FindMethod(of, *callee.name);
    budget_->set_line(e.line);
    if (builtin == nullptr) function = Attribute(of, callee.name, budget_);
  } else {
    function = Eval(callee);
  }
  if (!budget_->ok()) return {};
  Arguments arguments = ArgumentsOf(e);
  if (caller.is_defined()) arguments.named.emplace_back("caller", std::move(caller));
  budget_->set_line(e.line);
  if (!budget_->ok()) return {};
  if (builtin != nullptr) return jinja::Call(*builtin, of, std::move(arguments), budget_);
  return CallValue(e, function, std::move(arguments));
}

Value Evaluator::CallValue(const Expression& e, const Value& callee, Arguments arguments) {
  if (!callee.is_defined()) return Fail(e, callee.UndefinedMessage());
  auto* callable = callee.As<Callable>();
  if (callable == nullptr) return Fail(e, absl::StrCat("'", TypeName(callee), "' object is not callable"));
  return callable->Call(std::move(arguments), budget_);
}

Value Evaluator::Filter(const Expression& e, const Value* block_text) {
  Value of;
  if (e.children[0] == nullptr) {
    of = *block_text;
  } else if (block_text != nullptr && e.children[0]->kind == E::kFilter) {
    of = Filter(*e.children[0], block_text);
  } else {
    of = Eval(*e.children[0]);
  }
  if (e.builtin == nullptr) return Fail(e, absl::StrCat("No filter named '", *e.name, "'"));
  Arguments arguments = ArgumentsOf(e);
  budget_->set_line(e.line);
  return budget_->ok() ? jinja::Call(*e.builtin, of, std::move(arguments), budget_) : Value();
}

Value Evaluator::Test(const Expression& e) {
  const Value of = Eval(*e.children[0]);
  if (e.builtin == nullptr) return Fail(e, absl::StrCat("No test named '", *e.name, "'"));
  Arguments arguments = ArgumentsOf(e);
  budget_->set_line(e.line);
  return budget_->ok() ? jinja::Call(*e.builtin, of, std::move(arguments), budget_) : Value();
}

}  // namespace sessa::jinja
