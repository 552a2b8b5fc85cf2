// See evaluator.h: conditions, loops, macros, and blocks that capture what is written in them.
#include "absl/strings/str_cat.h"
#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/loop.h"
#include "server/jinja/print.h"
#include "server/jinja/scope.h"

namespace sessa::jinja {
namespace {

// A macro, or the caller() of a call block. Everything that it refers to lives as long as the rendering.
class Macro : public NamedCallable {
 public:
  Macro(Evaluator* evaluator, const Statement* statement, Evaluator::Scope* scope)
      : NamedCallable(0), evaluator_(evaluator), statement_(statement), scope_(scope) {}
  std::string_view type() const override { return "Macro"; }
  std::string_view name() const override {
    const Name name = statement_->signature->name;
    return name != nullptr ? std::string_view(*name) : std::string_view();
  }
  Value Call(Arguments arguments, Budget*) override {
    return evaluator_->CallMacro(*statement_, scope_, std::move(arguments));
  }

 private:
  Evaluator* const evaluator_;
  const Statement* const statement_;
  Evaluator::Scope* const scope_;
};

// The items of a loop for which its condition holds, each looked at when its turn comes.
class Filtered : public Iterator {
 public:
  Filtered(Evaluator* evaluator, const Statement* loop, Evaluator::Scope* scope, const Value& over,
           Budget* budget)
      : Iterator(over.depth() + 1), evaluator_(evaluator), loop_(loop), scope_(scope), walk_(over, budget) {}
  bool Next(Value* item, Budget* budget) override {
    while (walk_.Next(item)) {
      if (evaluator_->Chosen(*loop_, scope_, *item)) return budget->ok();
    }
    return false;
  }

 private:
  Evaluator* const evaluator_;
  const Statement* const loop_;
  Evaluator::Scope* const scope_;
  Walk walk_;
};

}  // namespace

Evaluator::Flow Evaluator::If(const Statement& s) {
  for (const Branch& branch : s.branches) {
    if (branch.condition == nullptr || Truth(Eval(*branch.condition))) return Run(branch.body);
    if (!budget_->ok()) break;
  }
  return Flow::kNormal;
}

bool Evaluator::Chosen(const Statement& loop, Scope* scope, const Value& item) {
  InScope inside(this, scope);
  Assign(loop.target, item, loop.line);
  return budget_->ok() && Truth(Eval(*loop.condition)) && budget_->ok();
}

Evaluator::Flow Evaluator::For(const Statement& s) {
  const Value over = Eval(*s.expression);
  if (!budget_->ok()) return Flow::kBreak;
  if (!s.recursive) return Loop(s, over, 0);
  Value text;
  {
    Capture capture(this);
    Loop(s, over, 0);
    text = capture.Finish();
  }
  AppendStr(text, budget_, out_);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Loop(const Statement& s, const Value& all, int depth) {
  const Flow flow = Enter(s.line, kCallLevels) ? LoopInside(s, all, depth) : Flow::kBreak;
  Leave(kCallLevels);
  return flow;
}

Evaluator::Flow Evaluator::LoopInside(const Statement& s, const Value& all, int depth) {
  Scope* const outer = scope_;
  Value over = all;
  if (s.condition != nullptr) {
    KeepScopes();
    over = Value(budget_->Make<Filtered>(this, &s, outer, all, budget_));
  }
  if (!budget_->ok()) return Flow::kBreak;
  std::shared_ptr<LoopContext> loop;
  if (s.uses_loop) {
    std::function<Value(Value, int)> recurse;
    if (s.recursive) {
      KeepScopes();
      recurse = [this, &s, outer](Value items, int deeper) {
        InScope inside(this, outer);
        Capture capture(this);
        Loop(s, items, deeper);
        return capture.Finish();
      };
    }
    loop = budget_->Make<LoopContext>(over, depth, std::move(recurse), budget_);
  }
  Walk walk(over, budget_);
  // As in Jinja: an item counts once its body has run to the end, which break and continue keep it from.
  bool none = true;
  if (budget_->ok()) {
    const Name loop_name = s.uses_loop ? &*template_.names.find("loop") : nullptr;
    InScope inside(this, outer);
    Value item;
    while (loop != nullptr ? loop->Next(&item, budget_) : walk.Next(&item)) {
      inside.Renew();
      Unset(s.unset);
      if (loop != nullptr) Store(loop_name, Value(std::shared_ptr<Object>(loop)));
      Assign(s.target, item, s.line);
      const Flow flow = Run(s.body);
      if (!budget_->ok()) break;
      if (flow == Flow::kNormal) none = false;
      if (flow == Flow::kBreak) break;
      budget_->set_line(s.line);
    }
  }
  if (loop != nullptr) loop->Finish();
  if (!budget_->ok() || !none || s.otherwise.empty()) return Flow::kNormal;
  InScope inside(this, outer);
  Unset(s.otherwise_unset);
  return Run(s.otherwise);
}

Evaluator::Flow Evaluator::SetBlock(const Statement& s) {
  Value text;
  {
    InScope inside(this, scope_);
    Unset(s.unset);
    Capture capture(this);
    if (const Flow flow = Run(s.body); flow != Flow::kNormal) return flow;
    text = capture.Finish();
  }
  if (s.expression != nullptr && budget_->ok()) text = Filter(*s.expression, &text);
  Assign(s.target, std::move(text), s.line);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::FilterBlock(const Statement& s) {
  Value text;
  {
    InScope inside(this, scope_);
    Unset(s.unset);
    Capture capture(this);
    if (const Flow flow = Run(s.body); flow != Flow::kNormal) return flow;
    text = capture.Finish();
    if (budget_->ok()) text = Filter(*s.expression, &text);
  }
  AppendText(text);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::With(const Statement& s) {
  List values;
  for (const auto& value : s.values) values.push_back(Eval(*value));  // in the outer scope
  InScope inside(this, scope_);
  Unset(s.unset);
  for (size_t i = 0; i < s.targets.size(); ++i) Assign(s.targets[i], std::move(values[i]), s.line);
  return Run(s.body);
}

void Evaluator::DefineMacro(const Statement& s) {
  KeepScopes();
  Store(s.signature->name, Value(budget_->Make<Macro>(this, &s, scope_)));
}

void Evaluator::CallBlock(const Statement& s) {
  KeepScopes();
  const Value caller(budget_->Make<Macro>(this, &s, scope_));
  AppendText(Call(*s.expression, caller));
}

void Evaluator::AppendText(const Value& text) {
  if (text.text() == nullptr && budget_->ok())
    budget_->Fail(absl::StrCat("a block can only write a text, not ", TypeName(text)));
  if (budget_->ok()) out_->Append(*text.text());
}

Value Evaluator::CallMacro(const Statement& s, Scope* scope, Arguments arguments) {
  InScope inside(this, scope);
  Unset(s.unset);
  Capture capture(this);
  if (Enter(s.signature->line, kCallLevels)) BindParameters(*s.signature, std::move(arguments));
  if (budget_->ok()) Run(s.body);
  Leave(kCallLevels);
  return capture.Finish();
}

void Evaluator::BindParameters(const Signature& signature, Arguments arguments) {
  const std::string name = signature.name != nullptr ? *signature.name : "caller";
  const size_t count = signature.parameters.size();
  const auto take = [&arguments](std::string_view wanted, Value* value) {
    for (size_t i = 0; i < arguments.named.size(); ++i) {
      if (arguments.named[i].first != wanted) continue;
      *value = std::move(arguments.named[i].second);
      arguments.named.erase(arguments.named.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    }
    return false;
  };
  std::vector<bool> is_missing(count, false);
  for (size_t i = 0; i < count; ++i) {
    Value value;
    if (i < arguments.positional.size()) {
      value = std::move(arguments.positional[i]);
    } else {
      is_missing[i] = !take(*signature.parameters[i], &value);
    }
    Store(signature.parameters[i], is_missing[i] ? Value::Undefined(signature.parameters[i], false) : value);
  }
  const auto special = [this](const char* special_name) { return &*template_.names.find(special_name); };
  if (signature.takes_caller) {
    Value caller;
    if (!take("caller", &caller) || caller.is_none()) caller = Value::Undefined(special("caller"), false);
    Store(special("caller"), std::move(caller));
  }
  if (signature.takes_kwargs) {
    DictBuilder kwargs(budget_);
    for (auto& [key, value] : arguments.named) kwargs.Put(budget_->Text(key), std::move(value));
    Store(special("kwargs"), kwargs.Finish());
  } else if (!arguments.named.empty()) {
    return budget_->Fail(
        absl::StrCat("macro '", name, "' takes no keyword argument '", arguments.named[0].first, "'"));
  }
  const size_t more = arguments.positional.size();
  if (signature.takes_varargs) {
    List varargs;
    for (size_t i = count; i < more; ++i) varargs.push_back(std::move(arguments.positional[i]));
    Store(special("varargs"), budget_->MakeTuple(std::move(varargs)));
  } else if (more > count) {
    return budget_->Fail(absl::StrCat("macro '", name, "' takes not more than ", count, " argument(s)"));
  }
  // They are computed in order, as a default may name the parameters before it.
  const size_t first_default = count - signature.defaults.size();
  for (size_t i = first_default; i < count && budget_->ok(); ++i) {
    if (is_missing[i]) Store(signature.parameters[i], Eval(*signature.defaults[i - first_default]));
  }
}

}  // namespace sessa::jinja
