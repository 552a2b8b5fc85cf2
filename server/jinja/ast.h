// The syntax tree of a template. Built by the parser, constant afterwards, walked by the evaluator.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/jinja/builtins.h"
#include "server/jinja/operators.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// Names are interned: equal ones are one string, which the template owns.
using Name = const std::string*;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

// What stands between the parentheses of a call, filter or test.
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<Name, ExpressionPtr>> named;
  ExpressionPtr more, more_named;  // *more, **more_named
};

struct Expression {
  enum class Kind {
    kLiteral,    // literal
    kName,       // name
    kAttribute,  // children[0].name
    kItem,       // children[0][children[1]]
    kSlice,      // children[0][children[1]:children[2]:children[3]], null where left out
    kCall,       // children[0](arguments)
    kFilter,     // children[0] | name(arguments); null: the text of the block that is filtered
    kTest,       // children[0] is name(arguments)
    kNot,        // not children[0]
    kNegative,   // -children[0]
    kPositive,   // +children[0]
    kAnd,        // children[0] and children[1]
    kOr,         // children[0] or children[1]
    kBinary,     // children[0] operators[0] children[1]
    kCompare,    // children[0] operators[0] children[1] operators[1] ...
    kConcat,     // children[0] ~ children[1] ~ ...
    kTernary,    // children[0] if children[1] else children[2] (null: undefined)
    kList,
    kTuple,
    kDict,  // keys and values in turn
  };
  Kind kind;
  int line = 0;
  int depth = 1;  // of the tree below; the parser bounds it, as the evaluator recurses
  Name name = nullptr;
  Value literal;
  std::vector<ExpressionPtr> children;
  std::vector<Operator> operators;
  std::unique_ptr<CallArguments> arguments;
  const Builtin* builtin = nullptr;  // of a filter or test; null: there is none of that name
};

// Where a value is put.
struct Target {
  enum class Kind { kName, kMember, kTuple };
  Kind kind = Kind::kName;
  Name name = nullptr, member = nullptr;
  std::vector<Target> items;
};

struct Statement;
using Block = std::vector<Statement>;

struct Branch {
  ExpressionPtr condition;  // null: else
  Block body;
};

// The signature of a macro, or of what a call block's caller() takes.
struct Signature {
  Name name = nullptr;  // null: of a call block
  int line = 0;
  std::vector<Name> parameters;
  std::vector<ExpressionPtr> defaults;                                     // of the last parameters
  bool takes_kwargs = false, takes_varargs = false, takes_caller = false;  // the body mentions them
};

struct Statement {
  enum class Kind {
    kText,      // text
    kOutput,    // {{ expression }}
    kIf,        // branches
    kFor,       // for target in expression (if condition): body, else: otherwise
    kSet,       // set target = expression
    kSetBlock,  // set target (| expression): body
    kMacro,     // signature, body
    kCall,      // call(signature) expression: body
    kFilter,    // filter expression: body
    kWith,      // with targets = values: body; also {% generation %}, which marks text for training
    kBreak,
    kContinue,
    kRefuse,  // what chat templates cannot have at run time: include and its kin, named by text
  };
  Kind kind;
  int line = 0;
  std::string text;
  ExpressionPtr expression, condition;
  Target target;
  std::vector<Target> targets;
  std::vector<ExpressionPtr> values;
  std::vector<Branch> branches;
  Block body, otherwise;
  std::vector<Name> unset, otherwise_unset;  // of body and otherwise: own_names.h
  std::unique_ptr<Signature> signature;
  bool recursive = false, uses_loop = false;
};

}  // namespace sessa::jinja
