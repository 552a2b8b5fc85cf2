// Walks the tree. What it makes of values is in jinja_builtins.h; what it may use in jinja_budget.h.
#include "server/tokenizer/jinja_eval.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/jinja_builtins.h"

namespace sessa::jinja {
namespace {

using E = Expression::Kind;

class Evaluator {
 public:
  Evaluator(std::vector<std::pair<std::string, Value>> variables, Budget* budget)
      : budget_(budget), scopes_(1), out_(budget) {
    for (auto& [name, value] : variables) scopes_[0][std::move(name)] = std::move(value);
  }

  absl::StatusOr<std::string> Run(const std::vector<Statement>& statements) {
    Body(statements);
    if (!budget_->ok()) return budget_->status();
    return out_.Release();
  }

 private:
  using Scope = std::map<std::string, Value, std::less<>>;

  bool Step(int line) {
    budget_->set_line(line);
    return budget_->Step();
  }
  Value Fail(const Expression& e, const std::string& what) {
    budget_->set_line(e.line);
    budget_->Fail(what);
    return {};
  }

  Value* FindVariable(std::string_view name) {
    budget_->Step(static_cast<int64_t>(scopes_.size()) / 4);
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (auto it = scope->find(name); it != scope->end()) return &it->second;
    }
    return nullptr;
  }

  void Body(const std::vector<Statement>& statements) {
    for (const Statement& s : statements) {
      if (!Step(s.line)) return;
      switch (s.kind) {
        case Statement::Kind::kText: out_.Append(s.text); break;
        case Statement::Kind::kOutput: AppendText(Eval(*s.expression), budget_, &out_); break;
        case Statement::Kind::kIf: Body(Truth(Eval(*s.expression)) ? s.body : s.otherwise); break;
        case Statement::Kind::kFor: For(s); break;
        case Statement::Kind::kSet: Set(s); break;
      }
    }
  }

  void For(const Statement& s) {
    const Value list = Chosen(s, Eval(*s.expression));
    if (!budget_->ok()) return;
    const List empty;
    const List& items = list.is_defined() ? *list.list() : empty;  // an undefined list is empty
    if (items.empty()) Body(s.otherwise);
    const int64_t n = static_cast<int64_t>(items.size());
    for (int64_t i = 0; i < n && Step(s.line); ++i) {
      DictBuilder loop(budget_);
      loop.Add("index", Value(i + 1));
      loop.Add("index0", Value(i));
      loop.Add("first", Value(i == 0));
      loop.Add("last", Value(i + 1 == n));
      loop.Add("length", Value(n));
      loop.Add("revindex", Value(n - i));
      loop.Add("revindex0", Value(n - i - 1));
      if (i > 0) loop.Add("previtem", items[i - 1]);
      if (i + 1 < n) loop.Add("nextitem", items[i + 1]);
      scopes_.push_back({{s.name, items[i]}, {"loop", loop.Finish()}});
      Body(s.body);
      scopes_.pop_back();
    }
  }

  // The items of a list that a loop goes over; undefined when `of` is.
  Value Chosen(const Statement& s, Value of) {
    if (of.is_defined() && of.list() == nullptr) {
      budget_->set_line(s.line);
      budget_->Fail(of.dict() != nullptr ? "loops over mappings are not supported; use .items()"
                                         : "only a list can be looped over");
    }
    if (!budget_->ok() || !of.is_defined() || s.condition == nullptr) return of;
    ListBuilder chosen(budget_);
    for (const Value& item : *of.list()) {
      if (!Step(s.line)) break;
      scopes_.push_back({{s.name, item}});
      if (Truth(Eval(*s.condition))) chosen.Append(item);
      scopes_.pop_back();
    }
    return chosen.Finish();
  }

  // A variable lives in the innermost loop, as in Jinja; what must outlive it is an attribute of a namespace.
  // Setting one replaces the variable's mapping: another variable that holds it keeps the old one.
  void Set(const Statement& s) {
    Value value = Eval(*s.expression);
    if (!budget_->ok()) return;
    if (s.attribute.empty()) {
      scopes_.back()[s.name] = std::move(value);
      return;
    }
    Value* object = FindVariable(s.name);
    budget_->set_line(s.line);
    if (object == nullptr || object->dict() == nullptr)
      return budget_->Fail(absl::StrCat("'", s.name, "' is no namespace"));
    DictBuilder changed(budget_);
    for (const auto& [name, old] : *object->dict()) changed.Add(name, old);
    changed.Put(s.attribute, std::move(value));
    *object = changed.Finish();
  }

  Value Eval(const Expression& e) {
    if (!Step(e.line)) return {};
    switch (e.kind) {
      case E::kLiteral: return e.literal;
      case E::kName: {
        const Value* v = FindVariable(e.name);
        return v == nullptr ? Value() : *v;
      }
      case E::kAttribute: {
        const Value of = Eval(*e.children[0]);
        if (const Value* v = of.dict() != nullptr ? Find(*of.dict(), e.name) : nullptr) return *v;
        return of.is_defined() ? Value()
                               : Fail(e, absl::StrCat("a member '", e.name, "' of something undefined"));
      }
      case E::kIndex: {
        const Value of = Eval(*e.children[0]), key = Eval(*e.children[1]);
        return budget_->ok() ? Member(of, key, budget_) : Value();
      }
      case E::kSlice: {
        const Value of = Eval(*e.children[0]);
        Value bounds[3];
        for (int i = 0; i < 3; ++i) {
          if (e.children[i + 1] != nullptr) bounds[i] = Eval(*e.children[i + 1]);
        }
        return budget_->ok() ? Slice(of, bounds, budget_) : Value();
      }
      case E::kCall: return Call(e);
      case E::kFilter: {
        Value result;
        const Value of = Eval(*e.children[0]);
        const std::vector<Value> arguments = Arguments(e);
        if (budget_->ok() && !CallFilter(e.name, of, arguments, budget_, &result))
          return Fail(e, absl::StrCat("filter '", e.name, "' is not supported here"));
        return result;
      }
      case E::kTest: {
        bool result = false;
        if (!CallTest(e.name, Eval(*e.children[0]), &result))
          return Fail(e, absl::StrCat("test '", e.name, "' is not supported here"));
        return Value(result);
      }
      case E::kUnary: {
        const Value v = Eval(*e.children[0]);
        if (e.name == "not") return Value(!Truth(v));
        return budget_->ok() ? Negated(e.name, v, budget_) : Value();
      }
      case E::kBinary: {
        const Value a = Eval(*e.children[0]);
        if (e.name == "and") return Truth(a) ? Eval(*e.children[1]) : a;
        if (e.name == "or") return Truth(a) ? a : Eval(*e.children[1]);
        const Value b = Eval(*e.children[1]);
        budget_->set_line(e.line);
        return budget_->ok() ? Binary(e.name, a, b, budget_) : Value();
      }
      case E::kTernary:
        if (Truth(Eval(*e.children[1]))) return Eval(*e.children[0]);
        return e.children[2] == nullptr ? Value() : Eval(*e.children[2]);
      case E::kList: {
        ListBuilder list(budget_);
        for (const auto& child : e.children) {
          Value item = Eval(*child);
          list.Append(item.is_defined() ? std::move(item) : Value::None());
        }
        return list.Finish();
      }
      case E::kDict: return MakeDict(e);
    }
    return {};
  }

  Value MakeDict(const Expression& e) {
    DictBuilder dict(budget_);
    for (size_t i = 0; i + 1 < e.children.size() && budget_->ok(); i += 2) {
      const Value key = ToText(Eval(*e.children[i]), budget_);
      Value value = Eval(*e.children[i + 1]);
      if (key.text() != nullptr) dict.Put(*key.text(), std::move(value));
    }
    return dict.Finish();
  }

  std::vector<Value> Arguments(const Expression& e) {
    std::vector<Value> out;
    for (size_t i = 1; i < e.children.size(); ++i) out.push_back(Eval(*e.children[i]));
    for (const auto& [name, value] : e.named)
      out.push_back(Eval(*value));  // in order: those of default(value, boolean=true)
    return out;
  }

  Value Call(const Expression& e) {
    const Expression& callee = *e.children[0];
    Value result;
    if (callee.kind == E::kAttribute) {
      const Value of = Eval(*callee.children[0]);
      const std::vector<Value> arguments = Arguments(e);
      if (budget_->ok() && !CallMethod(callee.name, of, arguments, budget_, &result))
        return Fail(e, absl::StrCat("method '", callee.name, "' is not supported here"));
      return result;
    }
    if (callee.kind != E::kName) return Fail(e, "this cannot be called");
    if (callee.name == "namespace" || callee.name == "dict") {
      DictBuilder dict(budget_);
      for (const auto& [name, value] : e.named) dict.Put(name, Eval(*value));
      return dict.Finish();
    }
    const std::vector<Value> arguments = Arguments(e);
    if (!budget_->ok()) return {};
    budget_->set_line(e.line);
    if (callee.name == "raise_exception") {
      const Value message = arguments.empty() ? Value() : ToText(arguments[0], budget_);
      budget_->Raise(message.text() != nullptr ? *message.text() : "");
      return {};
    }
    if (callee.name == "range") return Range(arguments, budget_);
    return Fail(e, absl::StrCat("function '", callee.name, "' is not known"));
  }

  Budget* const budget_;
  std::vector<Scope> scopes_;
  TextBuilder out_;
};

}  // namespace

absl::StatusOr<std::string> Evaluate(const std::vector<Statement>& statements,
                                     std::vector<std::pair<std::string, Value>> variables, Budget* budget) {
  return Evaluator(std::move(variables), budget).Run(statements);
}

}  // namespace sessa::jinja
