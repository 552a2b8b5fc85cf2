// Recursive descent through expressions, in Jinja's order of precedence.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/jinja/ast.h"
#include "server/jinja/cursor.h"

namespace sessa::jinja {

class ExpressionParser : protected TokenCursor {
 protected:
  ExpressionParser(std::vector<Token> tokens, std::set<std::string, std::less<>>* names);

  Name Intern(std::string_view name);
  // Jinja gives a macro `caller`, `kwargs` and `varargs`, and a loop `loop`, when the body mentions them
  // before it sets them. Whoever parses such a body puts a record of them on this stack.
  struct Mentions {
    bool caller = false, kwargs = false, varargs = false, loop = false;
    bool caller_set = false, kwargs_set = false, varargs_set = false, loop_set = false;
  };
  void NoteLoad(std::string_view name);
  void NoteStore(std::string_view name);
  std::vector<Mentions> mentions_;
  // In a branch of an if: a filter that does not exist is an error only when it is reached.
  bool in_branch_ = false;

  ExpressionPtr Ternary();
  ExpressionPtr Or();
  // One expression, or a tuple without parentheses; for and if take no "a if b else c" here.
  ExpressionPtr TupleOrOne(bool with_ternary = true);
  ExpressionPtr Primary();
  ExpressionPtr Postfix(ExpressionPtr e);
  // "| name(...)" again and again; `first` without the |.
  ExpressionPtr FilterChain(ExpressionPtr e, bool first);
  ExpressionPtr Make(Expression::Kind kind);
  void Add(Expression* to, ExpressionPtr child);
  bool AtTupleEnd() const;

 private:
  void Deepen(Expression* e, const Expression* child);
  ExpressionPtr Pair(Expression::Kind kind, ExpressionPtr left, ExpressionPtr right);
  ExpressionPtr Binary(Operator op, ExpressionPtr left, ExpressionPtr right);
  ExpressionPtr And();
  ExpressionPtr Not();
  ExpressionPtr Compare();
  bool TakeComparison(Operator* op);
  ExpressionPtr Sum();
  ExpressionPtr Concatenation();
  ExpressionPtr Product();
  ExpressionPtr Power();
  ExpressionPtr Unary(bool with_filters);
  ExpressionPtr Literal();
  ExpressionPtr Parenthesized();
  ExpressionPtr ListLiteral();
  ExpressionPtr DictLiteral();
  ExpressionPtr Subscript(ExpressionPtr of);
  ExpressionPtr Call(ExpressionPtr callee);
  ExpressionPtr Member(ExpressionPtr of);
  ExpressionPtr FiltersAndTests(ExpressionPtr e);
  ExpressionPtr Test(ExpressionPtr of);
  void Arguments(Expression* call);

  std::set<std::string, std::less<>>* const names_;
};

}  // namespace sessa::jinja
