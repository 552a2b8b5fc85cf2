// See expression_parser.h: literals, names, members, calls, filters and tests.
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/jinja/expression_parser.h"
#include "server/jinja/numbers.h"

namespace sessa::jinja {

using K = Token::Kind;
using E = Expression::Kind;

ExpressionPtr ExpressionParser::Primary() {
  if (Peek().kind == K::kName) {
    const std::string& name = Peek().text;
    auto e = Make(E::kLiteral);
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      e->literal = Value(name == "true" || name == "True");
    } else if (name == "none" || name == "None") {
      e->literal = Value::None();
    } else {
      e->kind = E::kName;
      e->name = Intern(name);
      NoteLoad(name);
    }
    Next();
    return e;
  }
  if (Peek().Is(K::kSymbol, "(")) return Parenthesized();
  if (Peek().Is(K::kSymbol, "[")) return ListLiteral();
  if (Peek().Is(K::kSymbol, "{")) return DictLiteral();
  return Literal();
}

ExpressionPtr ExpressionParser::Literal() {
  auto e = Make(E::kLiteral);
  const std::string text = Peek().text;
  if (Peek().kind == K::kString) {
    std::string joined;
    while (Peek().kind == K::kString) joined += Next().text;  // as in Python
    e->literal = Value::Literal(std::move(joined));
  } else if (Peek().kind == K::kInteger) {
    bool too_large = false;
    const auto value = ParseInteger(text, 0, &too_large);
    if (!value.has_value()) Fail(absl::StrCat("the integer ", text, " has more than 64 bits"));
    e->literal = Value(value.value_or(0));
    Next();
  } else if (Peek().kind == K::kFloat) {
    e->literal = Value(ParseReal(text).value_or(0));
    Next();
  } else {
    Fail(absl::StrCat("unexpected ", Described()));
  }
  return e;
}

ExpressionPtr ExpressionParser::Parenthesized() {
  auto tuple = Make(E::kTuple);
  Next();
  if (TakeSymbol(")")) return tuple;
  auto e = TupleOrOne();
  ExpectSymbol(")");
  return e;
}

ExpressionPtr ExpressionParser::ListLiteral() {
  auto e = Make(E::kList);
  Next();
  while (ok() && !TakeSymbol("]")) {
    Add(e.get(), Ternary());
    if (!Peek().Is(K::kSymbol, "]")) ExpectSymbol(",");
  }
  return e;
}

ExpressionPtr ExpressionParser::DictLiteral() {
  auto e = Make(E::kDict);
  Next();
  while (ok() && !TakeSymbol("}")) {
    Add(e.get(), Ternary());
    ExpectSymbol(":");
    Add(e.get(), Ternary());
    if (!Peek().Is(K::kSymbol, "}")) ExpectSymbol(",");
  }
  return e;
}

ExpressionPtr ExpressionParser::Postfix(ExpressionPtr e) {
  while (ok()) {
    if (TakeSymbol(".")) {
      e = Member(std::move(e));
    } else if (TakeSymbol("[")) {
      e = Subscript(std::move(e));
    } else if (Peek().Is(K::kSymbol, "(")) {
      e = Call(std::move(e));
    } else {
      break;
    }
  }
  return e;
}

ExpressionPtr ExpressionParser::Call(ExpressionPtr callee) {
  auto call = Make(E::kCall);
  Add(call.get(), std::move(callee));
  Arguments(call.get());
  return call;
}

ExpressionPtr ExpressionParser::Member(ExpressionPtr of) {
  if (Peek().kind == K::kInteger) {  // a.0
    auto index = Literal();
    return Pair(E::kItem, std::move(of), std::move(index));
  }
  auto e = Make(E::kAttribute);
  e->name = Intern(TakeIdentifier());
  Add(e.get(), std::move(of));
  return e;
}

ExpressionPtr ExpressionParser::Subscript(ExpressionPtr of) {
  ExpressionPtr parts[3];
  int count = 0;
  bool slice = false;
  for (; count < 3; ++count) {
    if (!Peek().Is(K::kSymbol, ":") && !Peek().Is(K::kSymbol, "]")) parts[count] = Ternary();
    if (count == 2 || !TakeSymbol(":")) break;
    slice = true;
  }
  if (!slice &&
      (parts[0] == nullptr || Peek().Is(K::kSymbol, ","))) {  // a[] and a[1, 2] have a tuple for a key
    auto tuple = Make(E::kTuple);
    if (parts[0] != nullptr) Add(tuple.get(), std::move(parts[0]));
    while (TakeSymbol(",") && ok()) Add(tuple.get(), Ternary());
    parts[0] = std::move(tuple);
  }
  ExpectSymbol("]");
  auto e = Make(slice ? E::kSlice : E::kItem);
  Add(e.get(), std::move(of));
  for (int i = 0; i < (slice ? 3 : 1); ++i) Add(e.get(), std::move(parts[i]));
  return e;
}

void ExpressionParser::Arguments(Expression* call) {
  ExpectSymbol("(");
  call->arguments = std::make_unique<CallArguments>();
  CallArguments& arguments = *call->arguments;
  while (ok() && !TakeSymbol(")")) {
    ExpressionPtr* into = nullptr;
    bool valid = arguments.more_named == nullptr;
    if (TakeSymbol("**")) {
      into = &arguments.more_named;
    } else if (TakeSymbol("*")) {
      valid = valid && arguments.more == nullptr;
      into = &arguments.more;
    } else if (Peek().kind == K::kName && Peek(1).Is(K::kSymbol, "=")) {
      const Name name = Intern(Next().text);
      Next();
      for (const auto& [other, value] : arguments.named) {
        if (other == name) Fail(absl::StrCat("keyword argument repeated: ", *name));
      }
      into = &arguments.named.emplace_back(name, nullptr).second;
    } else {
      valid = valid && arguments.more == nullptr && arguments.named.empty();
      into = &arguments.positional.emplace_back();
    }
    if (!valid) Fail("invalid syntax for function call expression");
    *into = Ternary();
    Deepen(call, into->get());
    if (!Peek().Is(K::kSymbol, ")")) ExpectSymbol(",");
  }
}

ExpressionPtr ExpressionParser::FiltersAndTests(ExpressionPtr e) {
  while (ok()) {
    if (Peek().Is(K::kSymbol, "|")) {
      e = FilterChain(std::move(e), false);
    } else if (TakeName("is")) {
      e = Test(std::move(e));
    } else if (Peek().Is(K::kSymbol, "(")) {
      e = Call(std::move(e));
    } else {
      break;
    }
  }
  return e;
}

ExpressionPtr ExpressionParser::FilterChain(ExpressionPtr e, bool first) {
  while (ok() && (first || TakeSymbol("|"))) {
    first = false;
    auto filter = Make(E::kFilter);
    std::string name = TakeIdentifier();
    while (TakeSymbol(".")) name += "." + TakeIdentifier();
    filter->name = Intern(name);
    filter->builtin = FindFilter(name);
    if (filter->builtin == nullptr && !in_branch_) Fail(absl::StrCat("No filter named '", name, "'"));
    Add(filter.get(), std::move(e));
    if (Peek().Is(K::kSymbol, "(")) Arguments(filter.get());
    e = std::move(filter);
  }
  return e;
}

// The argument of a test may stand without parentheses.
ExpressionPtr ExpressionParser::Test(ExpressionPtr of) {
  const bool negated = TakeName("not");
  auto test = Make(E::kTest);
  std::string name = TakeIdentifier();
  while (TakeSymbol(".")) name += "." + TakeIdentifier();
  test->name = Intern(name);
  test->builtin = FindTest(name);
  if (test->builtin == nullptr && !in_branch_) Fail(absl::StrCat("No test named '", name, "'"));
  Add(test.get(), std::move(of));
  const Token& next = Peek();
  const bool begins =
      next.kind == K::kString || next.kind == K::kInteger || next.kind == K::kFloat ||
      next.Is(K::kSymbol, "[") || next.Is(K::kSymbol, "{") ||
      (next.kind == K::kName && next.text != "else" && next.text != "or" && next.text != "and");
  if (next.Is(K::kSymbol, "(")) {
    Arguments(test.get());
  } else if (next.Is(K::kName, "is")) {
    Fail("You cannot chain multiple tests with is");
  } else if (begins) {
    const Nested nested(this);
    test->arguments = std::make_unique<CallArguments>();
    test->arguments->positional.push_back(Postfix(Primary()));
    Deepen(test.get(), test->arguments->positional[0].get());
  }
  if (!negated) return test;
  auto e = Make(E::kNot);
  Add(e.get(), std::move(test));
  return e;
}

}  // namespace sessa::jinja
