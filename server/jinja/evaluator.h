// Walks a template's tree. What it makes of values is in operators.h, members.h and builtins.h; what it may
// use in budget.h.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/jinja/ast.h"
#include "server/jinja/budget.h"
#include "server/jinja/parser.h"

namespace sessa::jinja {

// Renders a template with the values of `variables`, which are the budget's. INVALID_ARGUMENT names the line
// and what went wrong, which limit was reached, or says what the template itself raised; CANCELLED.
absl::StatusOr<std::string> Render(const Template& source,
                                   std::vector<std::pair<std::string, Value>> variables, Budget* budget);

class Evaluator {
 public:
  // The most expressions and statements inside each other, through macros and recursive loops; each takes up
  // to 700 bytes of the stack, a call or a loop as much as kCallLevels: a megabyte in all, several under a
  // sanitizer.
  static constexpr int kMaxDepth = 1500, kCallLevels = 5;

  Evaluator(const Template& source, Budget* budget);
  ~Evaluator();
  absl::StatusOr<std::string> Run(std::vector<std::pair<std::string, Value>> variables);

  Value Eval(const Expression& e);
  // What a call of a macro, or of a call block's caller(), writes. `scope`: where it was defined.
  struct Scope;
  Value CallMacro(const Statement& macro, Scope* scope, Arguments arguments);
  // Puts a loop's next item into its variables, and says whether its condition holds.
  bool Chosen(const Statement& loop, Scope* scope, const Value& item);

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class InScope;
  class Capture;

  bool Step(int line);
  // So much deeper; false when that is too deep, or the budget has failed. Leave comes in any case.
  bool Enter(int line, int levels = 1);
  void Leave(int levels = 1) { depth_ -= levels; }
  Value Fail(const Expression& e, const std::string& what);

  // --- variables: evaluator.cc ---
  Value Find(Name name);
  void Store(Name name, Value value);
  void Unset(const std::vector<Name>& names);  // a new scope's own, which have no value yet
  void KeepScopes();  // from the current one outwards: something has been made that refers to them
  void Assign(const Target& target, Value value, int line);

  // --- statements: evaluator.cc, evaluate_block.cc ---
  Flow Run(const Block& block);
  Flow One(const Statement& s);
  Flow If(const Statement& s);
  Flow For(const Statement& s);
  Flow Loop(const Statement& s, const Value& over, int depth);
  Flow LoopInside(const Statement& s, const Value& over, int depth);
  Flow SetBlock(const Statement& s);
  Flow FilterBlock(const Statement& s);
  Flow With(const Statement& s);
  void CallBlock(const Statement& s);
  void AppendText(const Value& text);  // of a block, which Jinja does not turn into a text itself
  void DefineMacro(const Statement& s);
  // The arguments that a signature names, into the current scope.
  void BindParameters(const Signature& signature, Arguments arguments);

  // --- expressions: evaluate_expression.cc ---
  Value Compute(const Expression& e);
  Value Member(const Expression& e);
  Value SliceOf(const Expression& e);
  Value Call(const Expression& e, Value caller);
  Value CallValue(const Expression& e, const Value& callee, Arguments arguments);
  Value Filter(const Expression& e, const Value* block_text);
  Value Test(const Expression& e);
  Value Compare(const Expression& e);
  Value Concat(const Expression& e);
  Value DictOf(const Expression& e);
  Arguments ArgumentsOf(const Expression& e);

  Budget* const budget_;
  const Template& template_;
  Scope* scope_ = nullptr;
  std::deque<std::unique_ptr<Scope>> kept_;  // scopes that something refers to
  int64_t kept_bytes_ = 0;
  TextBuilder* out_ = nullptr;
  int depth_ = 0;
};

}  // namespace sessa::jinja
