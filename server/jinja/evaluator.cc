// Variables and plain statements; loops, macros and blocks are in evaluate_block.cc.
#include "server/jinja/evaluator.h"

#include "absl/strings/str_cat.h"
#include "server/jinja/callables.h"
#include "server/jinja/iterate.h"
#include "server/jinja/print.h"
#include "server/jinja/scope.h"

namespace sessa::jinja {

absl::StatusOr<std::string> Render(const Template& source,
                                   std::vector<std::pair<std::string, Value>> variables, Budget* budget) {
  return Evaluator(source, budget).Run(std::move(variables));
}

Evaluator::Evaluator(const Template& source, Budget* budget) : budget_(budget), template_(source) {}

Evaluator::~Evaluator() {
  budget_->ForgetNamespaces();
  for (auto& scope : kept_) scope->variables.clear();
  budget_->Give(kept_bytes_);
}

absl::StatusOr<std::string> Evaluator::Run(std::vector<std::pair<std::string, Value>> variables) {
  TextBuilder out(budget_);
  out_ = &out;
  {
    InScope outermost(this, nullptr);
    for (auto& [name, value] : variables) {
      // One that the template never names cannot be seen.
      const auto it = template_.names.find(name);
      if (it != template_.names.end()) Store(&*it, std::move(value));
    }
    InScope root(this, scope_);
    Unset(template_.unset);
    Run(template_.body);
  }
  if (!budget_->ok()) return budget_->status();
  return out.Release();
}

bool Evaluator::Step(int line) {
  budget_->set_line(line);
  return budget_->Step();
}

bool Evaluator::Enter(int line, int levels) {
  if ((depth_ += levels) > kMaxDepth) {
    budget_->set_line(line);
    budget_->Fail("macros, loops or expressions are nested too deep");
  }
  return Step(line);
}

Value Evaluator::Fail(const Expression& e, const std::string& what) {
  budget_->set_line(e.line);
  budget_->Fail(what);
  return {};
}

Value Evaluator::Find(Name name) {
  int64_t looked = 0;
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return budget_->Step(looked / 16), value;
      ++looked;
    }
  }
  budget_->Step(looked / 16);
  if (const Builtin* function = FindFunction(*name))
    return Value(budget_->Make<BoundBuiltin>(function, Value()));
  return Value::Undefined(name, /*is_member=*/false);
}

void Evaluator::Store(Name name, Value value) {
  for (auto& [key, old] : scope_->variables) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  scope_->variables.emplace_back(name, std::move(value));
}

void Evaluator::Unset(const std::vector<Name>& names) {
  if (names.empty() || !budget_->Step(static_cast<int64_t>(names.size()))) return;
  for (const Name name : names) scope_->variables.emplace_back(name, Value::Undefined(name, false));
}

void Evaluator::KeepScopes() {
  for (Scope* scope = scope_; scope != nullptr && !scope->is_kept; scope = scope->parent)
    scope->is_kept = true;
}

void Evaluator::Assign(const Target& target, Value value, int line) {
  if (!budget_->ok()) return;
  if (target.kind == Target::Kind::kName) return Store(target.name, std::move(value));
  budget_->set_line(line);
  if (target.kind == Target::Kind::kMember) {
    const Value object = Find(target.name);
    auto* space = object.As<Namespace>();
    if (space == nullptr) return budget_->Fail("cannot assign attribute on non-namespace object");
    return budget_->Assign(space, *target.member, std::move(value));
  }
  const Value items = ListOf(value, budget_);
  if (!budget_->ok()) return;
  if (items.items()->size() != target.items.size()) {
    return budget_->Fail(absl::StrCat("cannot unpack ", items.items()->size(), " values into ",
                                      target.items.size(), " names"));
  }
  for (size_t i = 0; i < target.items.size(); ++i) Assign(target.items[i], (*items.items())[i], line);
}

Evaluator::Flow Evaluator::Run(const Block& block) {
  Flow flow = Flow::kNormal;
  for (size_t i = 0; i < block.size() && flow == Flow::kNormal; ++i) {
    if (Enter(block[i].line)) flow = One(block[i]);
    Leave();
    if (!budget_->ok()) return Flow::kBreak;
  }
  return flow;
}

Evaluator::Flow Evaluator::One(const Statement& s) {
  switch (s.kind) {
    case Statement::Kind::kText: out_->Append(s.text); break;
    case Statement::Kind::kOutput: {
      const Value value = Eval(*s.expression);
      AppendStr(value, budget_, out_);
      break;
    }
    case Statement::Kind::kSet: Assign(s.target, Eval(*s.expression), s.line); break;
    case Statement::Kind::kIf: return If(s);
    case Statement::Kind::kFor: return For(s);
    case Statement::Kind::kSetBlock: return SetBlock(s);
    case Statement::Kind::kFilter: return FilterBlock(s);
    case Statement::Kind::kWith: return With(s);
    case Statement::Kind::kMacro: DefineMacro(s); break;
    case Statement::Kind::kCall: CallBlock(s); break;
    case Statement::Kind::kBreak: return Flow::kBreak;
    case Statement::Kind::kContinue: return Flow::kContinue;
    case Statement::Kind::kRefuse:
      budget_->Fail(absl::StrCat("'", s.text, "': there are no other templates to load"));
  }
  return Flow::kNormal;
}

}  // namespace sessa::jinja
