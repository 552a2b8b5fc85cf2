// The syntax tree of a chat template. Built by JinjaParser, constant afterwards, walked by JinjaEvaluator.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/tokenizer/jinja_value.h"

namespace sessa::jinja {

struct Expression {
  enum class Kind {
    kLiteral,    // literal
    kName,       // name
    kAttribute,  // children[0].name
    kIndex,      // children[0][children[1]]
    kSlice,      // children[0][children[1]:children[2]:children[3]], null where left out
    kCall,       // children[0](children[1..], named)
    kFilter,     // children[0] | name(children[1..], named)
    kTest,       // children[0] is name
    kUnary,      // name: "not", "-", "+"
    kBinary,     // name: the operator
    kTernary,    // children[0] if children[1] else children[2] (null: undefined)
    kList,
    kDict,  // keys and values in turn
  };
  using Ptr = std::unique_ptr<Expression>;
  Kind kind;
  int line = 0;
  int depth = 1;  // of the tree below; the parser bounds it, as the evaluator recurses
  std::string name;
  Value literal;
  std::vector<Ptr> children;
  std::vector<std::pair<std::string, Ptr>> named;  // keyword arguments
};

struct Statement {
  enum class Kind {
    kText,    // text
    kOutput,  // {{ expression }}
    kFor,     // for name in expression (if condition): body, else: otherwise
    kIf,      // if expression: body, else: otherwise
    kSet,     // set name = expression, or set name.attribute = expression
  };
  Kind kind;
  int line = 0;
  std::string text, name, attribute;
  Expression::Ptr expression, condition;
  std::vector<Statement> body, otherwise;
};

}  // namespace sessa::jinja
