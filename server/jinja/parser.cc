// Statements; expressions are in expression_parser.cc.
#include "server/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/jinja/expression_parser.h"
#include "server/jinja/own_names.h"
#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

using K = Token::Kind;
using S = Statement::Kind;
using Ends = std::initializer_list<std::string_view>;

class Parser : private ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, std::set<std::string, std::less<>>* names)
      : ExpressionParser(std::move(tokens), names) {}

  absl::StatusOr<Block> Run() {
    Block body = Statements({});
    if (!ok()) return status();
    return body;
  }

 private:
  // Statements up to a tag with one of the `ends`, of which the name is next. Without `ends` up to the end.
  Block Statements(Ends ends) {
    const Nested nested(this);
    Block out;
    while (ok() && Peek().kind != K::kEnd) {
      Statement s{};
      s.line = Peek().line;
      if (Peek().kind == K::kText) {
        s.kind = S::kText;
        s.text = Next().text;
      } else if (Peek().kind == K::kOutputBegin) {
        Next();
        s.kind = S::kOutput;
        s.expression = TupleOrOne();
        Expect(K::kOutputEnd, "}}");
      } else {
        Expect(K::kBlockBegin, "a tag");
        if (Peek().kind == K::kName && std::find(ends.begin(), ends.end(), Peek().text) != ends.end())
          return out;
        Tag(ends, &s, &out);
        Expect(K::kBlockEnd, "%}");
        if (s.kind == S::kOutput && s.expression == nullptr) continue;  // print, which has put its own
      }
      out.push_back(std::move(s));
    }
    if (ends.size() > 0)
      Fail(absl::StrCat("unexpected end of template, expected '", View(*(ends.end() - 1)), "'"));
    return out;
  }

  // The body of a tag, whose %} is next, up to one of the ends.
  Block Body(Ends ends) {
    TakeSymbol(":");  // as in Python
    Expect(K::kBlockEnd, "%}");
    return Statements(ends);
  }
  // Such a body with a scope of its own, to the last of its ends.
  Block Scope(std::string_view end) {
    const bool outer = std::exchange(in_branch_, false);
    Block body = Body({end});
    Next();
    in_branch_ = outer;
    return body;
  }
  // Such a body that is a function in Python: no loop around it can be left from inside.
  Block FunctionScope(std::string_view end) {
    const int outer = std::exchange(loops_, 0);
    Block body = Scope(end);
    loops_ = outer;
    return body;
  }

  void Tag(Ends ends, Statement* s, Block* out) {
    struct Handler {
      std::string_view name;
      void (Parser::*parse)(Statement*);
    };
    static constexpr Handler kHandlers[] = {{"if", &Parser::If},
                                            {"for", &Parser::For},
                                            {"set", &Parser::Set},
                                            {"macro", &Parser::Macro},
                                            {"call", &Parser::CallBlock},
                                            {"filter", &Parser::FilterBlock},
                                            {"with", &Parser::With},
                                            {"break", &Parser::Leave},
                                            {"continue", &Parser::Leave},
                                            {"include", &Parser::Refuse},
                                            {"import", &Parser::Refuse},
                                            {"from", &Parser::Refuse},
                                            {"generation", &Parser::Generation}};
    const std::string name = Peek().text;
    if (Peek().kind != K::kName) return Fail("tag name expected");
    if (name == "print") return Print(s, out);
    for (const Handler& handler : kHandlers) {
      if (handler.name == name) return (this->*handler.parse)(s);
    }
    if (name == "block" || name == "extends" || name == "autoescape")
      return Fail(absl::StrCat("'", name, "' is not supported in chat templates"));
    std::string expected;
    for (std::string_view end : ends)
      absl::StrAppend(&expected, expected.empty() ? "" : " or ", "'", View(end), "'");
    Fail(absl::StrCat("Encountered unknown tag '", name, "'.",
                      expected.empty() ? "" : absl::StrCat(" Expected ", expected, ".")));
  }

  void If(Statement* s) {
    s->kind = S::kIf;
    const bool outer = std::exchange(in_branch_, true);
    do {
      Next();  // if or elif
      Branch branch;
      branch.condition = TupleOrOne(/*with_ternary=*/false);
      branch.body = Body({"elif", "else", "endif"});
      s->branches.push_back(std::move(branch));
    } while (ok() && Peek().Is(K::kName, "elif"));
    if (TakeName("else")) s->branches.push_back({nullptr, Body({"endif"})});
    Next();  // endif
    in_branch_ = outer;
  }

  void For(Statement* s) {
    Next();
    s->kind = S::kFor;
    ++fors_;
    mentions_.emplace_back();
    const Mentions before = mentions_.back();
    s->target = ParseTarget(/*with_members=*/false);
    if (!TakeName("in")) Fail(absl::StrCat("expected 'in', got ", Described()));
    s->expression = TupleOrOne(/*with_ternary=*/false);
    if (TakeName("if")) s->condition = Ternary();
    s->recursive = TakeName("recursive");
    mentions_.back() = before;  // the body's alone count
    const bool outer = std::exchange(in_branch_, false);
    ++loops_;
    s->body = Body({"endfor", "else"});
    --loops_;
    s->uses_loop = s->recursive || mentions_.back().loop;
    mentions_.pop_back();
    if (TakeName("else")) s->otherwise = Body({"endfor"});
    Next();  // endfor
    in_branch_ = outer;
    --fors_;
  }

  void Set(Statement* s) {
    Next();
    s->target = ParseTarget(/*with_members=*/true);
    if (TakeSymbol("=")) {
      s->kind = S::kSet;
      s->expression = TupleOrOne();
      return;
    }
    s->kind = S::kSetBlock;
    if (TakeSymbol("|")) s->expression = FilterChain(nullptr, /*first=*/true);
    s->body = Scope("endset");
  }

  // (a, b=1) of a macro or a call block.
  void Parameters(Signature* signature) {
    ExpectSymbol("(");
    while (ok() && !TakeSymbol(")")) {
      if (!signature->parameters.empty()) ExpectSymbol(",");
      signature->parameters.push_back(StoredName());
      if (TakeSymbol("="))
        signature->defaults.push_back(Ternary());
      else if (!signature->defaults.empty())
        Fail("non-default argument follows default argument");
    }
  }

  // A macro's or a call block's body, and what of a call it wants to see.
  void SignedBody(std::string_view end, Statement* s) {
    mentions_.emplace_back();
    s->body = FunctionScope(end);
    const Mentions mentions = mentions_.back();
    mentions_.pop_back();
    Signature& signature = *s->signature;
    signature.line = s->line;
    const auto has = [&signature](std::string_view name) {
      return std::any_of(signature.parameters.begin(), signature.parameters.end(),
                         [&](Name n) { return *n == name; });
    };
    signature.takes_kwargs = mentions.kwargs && !has("kwargs");
    signature.takes_varargs = mentions.varargs && !has("varargs");
    signature.takes_caller = mentions.caller && !has("caller");
  }

  void Macro(Statement* s) {
    Next();
    s->kind = S::kMacro;
    s->signature = std::make_unique<Signature>();
    s->signature->name = StoredName();
    Parameters(s->signature.get());
    SignedBody("endmacro", s);
  }

  void CallBlock(Statement* s) {
    Next();
    s->kind = S::kCall;
    s->signature = std::make_unique<Signature>();
    if (Peek().Is(K::kSymbol, "(")) Parameters(s->signature.get());
    s->expression = Ternary();
    if (ok() && s->expression->kind != Expression::Kind::kCall) Fail("expected call");
    SignedBody("endcall", s);
  }

  void FilterBlock(Statement* s) {
    Next();
    s->kind = S::kFilter;
    s->expression = FilterChain(nullptr, /*first=*/true);
    s->body = Scope("endfilter");
  }

  void With(Statement* s) {
    Next();
    s->kind = S::kWith;
    while (ok() && Peek().kind != K::kBlockEnd) {
      if (!s->targets.empty()) ExpectSymbol(",");
      s->targets.push_back(ParseTarget(/*with_members=*/false));
      ExpectSymbol("=");
      s->values.push_back(Ternary());
    }
    s->body = Scope("endwith");
  }

  void Generation(Statement* s) {
    Next();
    s->kind = S::kWith;
    s->body = FunctionScope("endgeneration");
  }

  void Leave(Statement* s) {
    s->kind = Peek().text == "break" ? S::kBreak : S::kContinue;
    if (loops_ == 0) Fail(absl::StrCat("'", Peek().text, "' outside loop"));
    Next();
  }

  void Refuse(Statement* s) {
    s->kind = S::kRefuse;
    s->text = Next().text;
    while (ok() && Peek().kind != K::kBlockEnd && Peek().kind != K::kEnd) Next();
  }

  void Print(Statement* s, Block* out) {
    Next();
    s->kind = S::kOutput;
    for (bool first = true; ok() && Peek().kind != K::kBlockEnd; first = false) {
      if (!first) ExpectSymbol(",");
      Statement one{};
      one.kind = S::kOutput;
      one.line = Peek().line;
      one.expression = Ternary();
      out->push_back(std::move(one));
    }
  }

  Name StoredName() {
    const std::string name = TakeIdentifier();
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) Fail(absl::StrCat("can't assign to '", name, "'"));
    }
    if (name == "loop" && fors_ > 0) Fail("Can't assign to special loop variable in for-loop target");
    NoteStore(name);
    return Intern(name);
  }

  // One target of a set or for: a name, a namespace's member, or several in parentheses or brackets... as
  // Python.
  Target OneTarget(bool with_members) {
    const Nested nested(this);
    Target target;
    if (TakeSymbol("(")) {
      target = ParseTarget(with_members);
      ExpectSymbol(")");
      return target;
    }
    if (with_members && Peek(1).Is(K::kSymbol, ".")) {
      target.kind = Target::Kind::kMember;
      const std::string name = TakeIdentifier();
      NoteLoad(name);
      target.name = Intern(name);
      Next();
      target.member = Intern(TakeIdentifier());
      return target;
    }
    target.name = StoredName();
    return target;
  }

  Target ParseTarget(bool with_members) {
    Target first = OneTarget(with_members);
    if (!Peek().Is(K::kSymbol, ",")) return first;
    Target tuple;
    tuple.kind = Target::Kind::kTuple;
    tuple.items.push_back(std::move(first));
    while (ok() && TakeSymbol(",")) {
      if (AtTupleEnd() || Peek().Is(K::kSymbol, "=") || Peek().Is(K::kName, "in")) break;
      tuple.items.push_back(OneTarget(with_members));
    }
    return tuple;
  }

  int loops_ = 0;  // around, in the same function
  int fors_ = 0;   // around
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Template>> Parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("chat template: it has ", source.size(), " bytes, at most ", kMaxSourceBytes));
  }
  auto tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  auto result = std::make_unique<Template>();
  auto body = Parser(*std::move(tokens), &result->names).Run();
  if (!body.ok()) return body.status();
  result->body = *std::move(body);
  result->unset = FindOwnNames(&result->body);
  return std::unique_ptr<const Template>(std::move(result));
}

}  // namespace sessa::jinja
