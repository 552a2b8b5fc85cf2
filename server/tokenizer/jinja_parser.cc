// Recursive descent in Jinja's order of precedence.
#include "server/tokenizer/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/jinja_cursor.h"

namespace sessa::jinja {
namespace {

using K = Token::Kind;
using E = Expression::Kind;

class Parser : private TokenCursor {
 public:
  explicit Parser(std::vector<Token> tokens) : TokenCursor(std::move(tokens), kMaxNesting) {}

  absl::StatusOr<std::vector<Statement>> Run() {
    std::vector<Statement> statements = Body({});
    if (Peek().kind != K::kEnd) Fail(absl::StrCat("unexpected '", Peek(1).text, "'"));
    if (!ok()) return status();
    return statements;
  }

 private:
  Expression::Ptr Make(E kind, std::string name = "") {
    auto e = std::make_unique<Expression>();
    e->kind = kind;
    e->line = Peek().line;
    e->name = std::move(name);
    return e;
  }

  // Puts `child` under `e`; null stands for something left out. A chain of operators is as deep as it is
  // long.
  void Add(Expression* e, Expression::Ptr child) {
    Deepen(e, child.get());
    e->children.push_back(std::move(child));
  }
  void Deepen(Expression* e, const Expression* child) {
    if (child != nullptr) e->depth = std::max(e->depth, child->depth + 1);
    if (e->depth > kMaxExpressionDepth)
      Fail("an expression is nested too deep, or a chain of operators too long");
  }

  // Statements up to a tag with one of the `ends` (not consumed).
  std::vector<Statement> Body(std::initializer_list<std::string_view> ends) {
    const Nested nested(this);
    std::vector<Statement> out;
    while (ok() && Peek().kind != K::kEnd) {
      if (Peek().kind == K::kBlockBegin && std::find(ends.begin(), ends.end(), Peek(1).text) != ends.end())
        break;
      if (Peek().kind == K::kBlockBegin &&
          (Peek(1).text == "generation" || Peek(1).text == "endgeneration")) {  // marks for training
        Next(), Next();
        Expect(K::kBlockEnd, "", "%}");
        continue;
      }
      if (Peek().kind == K::kBlockBegin && Peek(1).text.starts_with("e"))
        break;  // endif, else, ... of somebody else
      Statement s{};
      s.line = Peek().line;
      if (Peek().kind == K::kText) {
        s.kind = Statement::Kind::kText;
        s.text = Next().text;
      } else if (Peek().kind == K::kOutputBegin) {
        Next();
        s.kind = Statement::Kind::kOutput;
        s.expression = Ternary();
        Expect(K::kOutputEnd, "", "}}");
      } else {
        Expect(K::kBlockBegin, "", "a tag");
        Block(&s);
      }
      out.push_back(std::move(s));
    }
    return out;
  }

  void EndBlock(std::string_view name) {
    Expect(K::kBlockBegin, "", absl::StrCat("{% ", std::string(name), " %}").c_str());
    Expect(K::kName, name, std::string(name).c_str());
    Expect(K::kBlockEnd, "", "%}");
  }

  void Block(Statement* s) {
    const std::string name = Name();
    if (name == "if") return If(s);
    if (name == "for") return For(s);
    if (name == "set") return Set(s);
    Fail(absl::StrCat("'", name, "' is not supported"));
  }

  void If(Statement* s) {
    const Nested nested(this);
    s->kind = Statement::Kind::kIf;
    s->expression = Ternary();
    Expect(K::kBlockEnd, "", "%}");
    s->body = Body({"elif", "else", "endif"});
    if (Peek(1).Is(K::kName, "elif")) {
      Statement inner{};
      inner.line = Next().line;
      Next();
      If(&inner);  // takes the endif
      s->otherwise.push_back(std::move(inner));
      return;
    }
    Else(s, "endif");
  }

  void Else(Statement* s, std::string_view end) {
    if (Peek(1).Is(K::kName, "else")) {
      Next(), Next();
      Expect(K::kBlockEnd, "", "%}");
      s->otherwise = Body({end});
    }
    EndBlock(end);
  }

  void For(Statement* s) {
    s->kind = Statement::Kind::kFor;
    s->name = Name();
    Expect(K::kName, "in", "in");
    s->expression = Or();
    if (TakeName("if")) s->condition = Ternary();
    Expect(K::kBlockEnd, "", "%}");
    s->body = Body({"else", "endfor"});
    Else(s, "endfor");
  }

  void Set(Statement* s) {
    s->kind = Statement::Kind::kSet;
    s->name = Name();
    if (TakeSymbol(".")) s->attribute = Name();
    Expect(K::kSymbol, "=", "= (a block of set is not supported)");
    s->expression = Ternary();
    Expect(K::kBlockEnd, "", "%}");
  }

  Expression::Ptr Binary(std::string op, Expression::Ptr left, Expression::Ptr right) {
    auto e = Make(E::kBinary, std::move(op));
    Add(e.get(), std::move(left));
    Add(e.get(), std::move(right));
    return e;
  }
  Expression::Ptr Unary(std::string op, Expression::Ptr of) {
    auto e = Make(E::kUnary, std::move(op));
    Add(e.get(), std::move(of));
    return e;
  }

  Expression::Ptr Ternary() {
    const Nested nested(this);
    auto value = Or();
    while (TakeName("if")) {
      auto e = Make(E::kTernary);
      Add(e.get(), std::move(value));
      Add(e.get(), Or());
      Add(e.get(), TakeName("else") ? Ternary() : nullptr);
      value = std::move(e);
    }
    return value;
  }
  Expression::Ptr Or() {
    auto left = And();
    while (TakeName("or")) left = Binary("or", std::move(left), And());
    return left;
  }
  Expression::Ptr And() {
    auto left = Not();
    while (TakeName("and")) left = Binary("and", std::move(left), Not());
    return left;
  }
  Expression::Ptr Not() {
    if (!TakeName("not")) return Compare();
    const Nested nested(this);
    return Unary("not", Not());
  }
  // A chain a < b < c is refused rather than misread.
  Expression::Ptr Compare() {
    auto left = Sum();
    for (int count = 0;; ++count) {
      std::string op;
      for (const char* symbol : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (op.empty() && TakeSymbol(symbol)) op = symbol;
      }
      if (op.empty() && TakeName("in")) op = "in";
      if (op.empty() && Peek().Is(K::kName, "not") && Peek(1).Is(K::kName, "in")) {
        Next(), Next();
        op = "not in";
      }
      if (op.empty()) return left;
      if (count > 0) Fail("chains of comparisons are not supported");
      left = Binary(op, std::move(left), Sum());
    }
  }
  Expression::Ptr Sum() {
    auto left = Concatenation();
    while (Peek().Is(K::kSymbol, "+") || Peek().Is(K::kSymbol, "-")) {
      const std::string op = Next().text;
      left = Binary(op, std::move(left), Concatenation());
    }
    return left;
  }
  Expression::Ptr Concatenation() {
    auto left = Product();
    while (TakeSymbol("~")) left = Binary("~", std::move(left), Product());
    return left;
  }
  Expression::Ptr Product() {
    auto left = Sign();
    while (Peek().Is(K::kSymbol, "*") || Peek().Is(K::kSymbol, "/") || Peek().Is(K::kSymbol, "//") ||
           Peek().Is(K::kSymbol, "%")) {
      const std::string op = Next().text;
      left = Binary(op, std::move(left), Sign());
    }
    return left;
  }
  Expression::Ptr Sign() {
    if (Peek().Is(K::kSymbol, "-") || Peek().Is(K::kSymbol, "+")) {
      const Nested nested(this);
      const std::string op = Next().text;
      return Unary(op, Sign());
    }
    auto e = Postfix(Primary());
    return Filters(std::move(e));
  }

  Expression::Ptr Postfix(Expression::Ptr e) {
    while (ok()) {
      if (TakeSymbol(".")) {
        auto attribute = Make(E::kAttribute, Name());
        Add(attribute.get(), std::move(e));
        e = std::move(attribute);
      } else if (TakeSymbol("[")) {
        e = Subscript(std::move(e));
      } else if (TakeSymbol("(")) {
        auto call = Make(E::kCall);
        Add(call.get(), std::move(e));
        Arguments(call.get());
        e = std::move(call);
      } else {
        break;
      }
    }
    return e;
  }

  Expression::Ptr Subscript(Expression::Ptr of) {
    Expression::Ptr parts[3];
    int count = 0;
    bool slice = false;
    for (; count < 3; ++count) {
      if (!Peek().Is(K::kSymbol, ":") && !Peek().Is(K::kSymbol, "]")) parts[count] = Ternary();
      if (!TakeSymbol(":")) break;
      slice = true;
    }
    Expect(K::kSymbol, "]", "]");
    if (!slice && parts[0] == nullptr) Fail("expected an index");
    auto e = Make(slice ? E::kSlice : E::kIndex);
    Add(e.get(), std::move(of));
    for (int i = 0; i < (slice ? 3 : 1); ++i) Add(e.get(), std::move(parts[i]));
    return e;
  }

  void Arguments(Expression* call) {
    while (ok() && !TakeSymbol(")")) {
      if (Peek().kind == K::kName && Peek(1).Is(K::kSymbol, "=")) {
        std::string name = Name();
        Next();
        call->named.emplace_back(std::move(name), Ternary());
        Deepen(call, call->named.back().second.get());
      } else {
        Add(call, Ternary());
      }
      if (!Peek().Is(K::kSymbol, ")")) Expect(K::kSymbol, ",", ", or )");
    }
  }

  // Filters and tests bind tighter than every operator.
  Expression::Ptr Filters(Expression::Ptr e) {
    while (ok()) {
      if (TakeSymbol("|")) {
        auto filter = Make(E::kFilter, Name());
        Add(filter.get(), std::move(e));
        if (TakeSymbol("(")) Arguments(filter.get());
        e = std::move(filter);
      } else if (TakeName("is")) {
        const bool negated = TakeName("not");
        auto test = Make(E::kTest, Name());
        Add(test.get(), std::move(e));
        if (TakeSymbol("(")) Arguments(test.get());
        e = negated ? Unary("not", std::move(test)) : std::move(test);
      } else {
        break;
      }
    }
    return e;
  }

  Expression::Ptr Literal(Value value) {
    auto e = Make(E::kLiteral);
    e->literal = std::move(value);
    return e;
  }

  Expression::Ptr Primary() {
    const Token token = Next();
    switch (token.kind) {
      case K::kString: {
        std::string value = token.text;
        while (Peek().kind == K::kString) value += Next().text;  // neighbours are one string
        return Literal(Value::Literal(std::move(value)));
      }
      case K::kInteger: {
        int64_t value = 0;
        if (!absl::SimpleAtoi(token.text, &value)) Fail("an integer is too large");
        return Literal(Value(value));
      }
      case K::kFloat: {
        double value = 0;
        if (!absl::SimpleAtod(token.text, &value)) Fail("a number is malformed");
        return Literal(Value(value));
      }
      case K::kName:
        if (token.text == "true" || token.text == "True") return Literal(Value(true));
        if (token.text == "false" || token.text == "False") return Literal(Value(false));
        if (token.text == "none" || token.text == "None") return Literal(Value::None());
        return Make(E::kName, token.text);
      default: break;
    }
    if (token.Is(K::kSymbol, "(")) {
      auto e = Ternary();
      Expect(K::kSymbol, ")", ")");
      return e;
    }
    if (token.Is(K::kSymbol, "[")) {
      auto e = Make(E::kList);
      while (ok() && !TakeSymbol("]")) {
        Add(e.get(), Ternary());
        if (!Peek().Is(K::kSymbol, "]")) Expect(K::kSymbol, ",", ", or ]");
      }
      return e;
    }
    if (token.Is(K::kSymbol, "{")) {
      auto e = Make(E::kDict);
      while (ok() && !TakeSymbol("}")) {
        Add(e.get(), Ternary());
        Expect(K::kSymbol, ":", ":");
        Add(e.get(), Ternary());
        if (!Peek().Is(K::kSymbol, "}")) Expect(K::kSymbol, ",", ", or }");
      }
      return e;
    }
    Fail("expected an expression");
    return Make(E::kLiteral);
  }
};

}  // namespace

absl::StatusOr<std::vector<Statement>> Parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("chat template: has ", source.size(), " bytes, at most ",
                                                   kMaxSourceBytes, " are taken"));
  }
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace sessa::jinja
