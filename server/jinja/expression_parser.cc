// See expression_parser.h: operators; what they are applied to is in primary_parser.cc.
#include "server/jinja/expression_parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/jinja/parser.h"

namespace sessa::jinja {
namespace {

using K = Token::Kind;
using E = Expression::Kind;

struct Spelling {
  const char* symbol;
  Operator op;
};
constexpr Spelling kComparisons[] = {{"==", Operator::kEqual},     {"!=", Operator::kNotEqual},
                                     {"<=", Operator::kLessEqual}, {">=", Operator::kGreaterEqual},
                                     {"<", Operator::kLess},       {">", Operator::kGreater}};
constexpr Spelling kSums[] = {{"+", Operator::kAdd}, {"-", Operator::kSubtract}};
constexpr Spelling kProducts[] = {{"*", Operator::kMultiply},
                                  {"/", Operator::kDivide},
                                  {"//", Operator::kFloorDivide},
                                  {"%", Operator::kModulo}};

}  // namespace

ExpressionParser::ExpressionParser(std::vector<Token> tokens, std::set<std::string, std::less<>>* names)
    : TokenCursor(std::move(tokens), kMaxNesting), names_(names) {}

Name ExpressionParser::Intern(std::string_view name) {
  const auto it = names_->find(name);
  return it != names_->end() ? &*it : &*names_->emplace(name).first;
}

void ExpressionParser::NoteLoad(std::string_view name) {
  for (Mentions& m : mentions_) {
    if (name == "caller" && !m.caller_set) m.caller = true;
    if (name == "kwargs" && !m.kwargs_set) m.kwargs = true;
    if (name == "varargs" && !m.varargs_set) m.varargs = true;
    if (name == "loop" && !m.loop_set) m.loop = true;
  }
}

void ExpressionParser::NoteStore(std::string_view name) {
  for (Mentions& m : mentions_) {
    if (name == "caller") m.caller_set = true;
    if (name == "kwargs") m.kwargs_set = true;
    if (name == "varargs") m.varargs_set = true;
    if (name == "loop") m.loop_set = true;
  }
}

ExpressionPtr ExpressionParser::Make(E kind) {
  auto e = std::make_unique<Expression>();
  e->kind = kind;
  e->line = Peek().line;
  return e;
}

void ExpressionParser::Deepen(Expression* e, const Expression* child) {
  if (child != nullptr) e->depth = std::max(e->depth, child->depth + 1);
  if (e->depth > kMaxExpressionDepth)
    Fail("an expression is nested too deep, or a chain of operators too long");
}

// Null stands for something left out.
void ExpressionParser::Add(Expression* to, ExpressionPtr child) {
  Deepen(to, child.get());
  to->children.push_back(std::move(child));
}

ExpressionPtr ExpressionParser::Pair(E kind, ExpressionPtr left, ExpressionPtr right) {
  auto e = Make(kind);
  Add(e.get(), std::move(left));
  Add(e.get(), std::move(right));
  return e;
}

ExpressionPtr ExpressionParser::Binary(Operator op, ExpressionPtr left, ExpressionPtr right) {
  auto e = Pair(E::kBinary, std::move(left), std::move(right));
  e->operators.push_back(op);
  return e;
}

bool ExpressionParser::AtTupleEnd() const {
  return Peek().kind == K::kOutputEnd || Peek().kind == K::kBlockEnd || Peek().Is(K::kSymbol, ")") ||
         Peek().kind == K::kEnd;
}

ExpressionPtr ExpressionParser::TupleOrOne(bool with_ternary) {
  ExpressionPtr first;
  ExpressionPtr tuple;
  do {
    if (tuple != nullptr && (AtTupleEnd() || Peek().Is(K::kName, "recursive"))) break;
    if (AtTupleEnd()) Fail(absl::StrCat("Expected an expression, got ", Described()));
    auto item = with_ternary ? Ternary() : Or();
    if (tuple != nullptr) {
      Add(tuple.get(), std::move(item));
    } else if (Peek().Is(K::kSymbol, ",")) {
      tuple = Make(E::kTuple);
      Add(tuple.get(), std::move(item));
    } else {
      first = std::move(item);
    }
  } while (ok() && TakeSymbol(","));
  return tuple != nullptr ? std::move(tuple) : std::move(first);
}

ExpressionPtr ExpressionParser::Ternary() {
  const Nested nested(this);
  const bool outer = in_branch_;
  auto value = Or();
  while (TakeName("if")) {
    auto e = Make(E::kTernary);
    Add(e.get(), std::move(value));
    in_branch_ = true;
    Add(e.get(), Or());
    Add(e.get(), TakeName("else") ? Ternary() : nullptr);
    in_branch_ = outer;
    value = std::move(e);
  }
  return value;
}

ExpressionPtr ExpressionParser::Or() {
  auto left = And();
  while (TakeName("or")) left = Pair(E::kOr, std::move(left), And());
  return left;
}

ExpressionPtr ExpressionParser::And() {
  auto left = Not();
  while (TakeName("and")) left = Pair(E::kAnd, std::move(left), Not());
  return left;
}

ExpressionPtr ExpressionParser::Not() {
  if (!TakeName("not")) return Compare();
  const Nested nested(this);
  auto e = Make(E::kNot);
  Add(e.get(), Not());
  return e;
}

bool ExpressionParser::TakeComparison(Operator* op) {
  for (const auto& [symbol, comparison] : kComparisons) {
    if (TakeSymbol(symbol)) return *op = comparison, true;
  }
  if (TakeName("in")) return *op = Operator::kIn, true;
  if (!Peek().Is(K::kName, "not") || !Peek(1).Is(K::kName, "in")) return false;
  Next(), Next();
  return *op = Operator::kNotIn, true;
}

ExpressionPtr ExpressionParser::Compare() {
  auto first = Sum();
  ExpressionPtr chain;
  for (Operator op; TakeComparison(&op);) {
    if (chain == nullptr) {
      chain = Make(E::kCompare);
      Add(chain.get(), std::move(first));
    }
    chain->operators.push_back(op);
    Add(chain.get(), Sum());
  }
  return chain != nullptr ? std::move(chain) : std::move(first);
}

ExpressionPtr ExpressionParser::Sum() {
  auto left = Concatenation();
  for (size_t i = 0; i < std::size(kSums);) {
    if (!TakeSymbol(kSums[i].symbol)) {
      ++i;
      continue;
    }
    left = Binary(kSums[i].op, std::move(left), Concatenation());
    i = 0;
  }
  return left;
}

ExpressionPtr ExpressionParser::Concatenation() {
  auto first = Product();
  if (!Peek().Is(K::kSymbol, "~")) return first;
  auto all = Make(E::kConcat);
  Add(all.get(), std::move(first));
  while (TakeSymbol("~")) Add(all.get(), Product());
  return all;
}

ExpressionPtr ExpressionParser::Product() {
  auto left = Power();
  for (size_t i = 0; i < std::size(kProducts);) {
    if (!TakeSymbol(kProducts[i].symbol)) {
      ++i;
      continue;
    }
    left = Binary(kProducts[i].op, std::move(left), Power());
    i = 0;
  }
  return left;
}

// Unlike Python's, from left to right, and -2 ** 2 is 4.
ExpressionPtr ExpressionParser::Power() {
  auto left = Unary(true);
  while (TakeSymbol("**")) left = Binary(Operator::kPower, std::move(left), Unary(true));
  return left;
}

ExpressionPtr ExpressionParser::Unary(bool with_filters) {
  ExpressionPtr e;
  const bool plus = Peek().Is(K::kSymbol, "+");
  if (plus || Peek().Is(K::kSymbol, "-")) {
    const Nested nested(this);
    e = Make(plus ? E::kPositive : E::kNegative);
    Next();
    Add(e.get(), Unary(false));
  } else {
    e = Primary();
  }
  e = Postfix(std::move(e));
  return with_filters ? FiltersAndTests(std::move(e)) : std::move(e);
}

}  // namespace sessa::jinja
