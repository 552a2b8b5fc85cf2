// A template's source to its syntax tree, by Jinja2's grammar with the tags that Hugging Face adds: break,
// continue and generation. What belongs to templates that load others (extends, block, include, import) is
// refused, include and import only when they are reached, as there is nothing to load from.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/jinja/ast.h"

namespace sessa::jinja {

// The most that a template's source may have; published ones have up to 50 KB.
constexpr size_t kMaxSourceBytes = 1 << 20;
// Statements inside each other, and parentheses, lists, calls and signs. The parser recurses in fifteen
// functions for each.
constexpr int kMaxNesting = 100;
// The levels of an expression's tree, where every operator of a chain a + b + c is one.
constexpr int kMaxExpressionDepth = 250;

// Constant and thread-safe once it is there.
struct Template {
  std::set<std::string, std::less<>> names;  // of which the tree has pointers
  Block body;
  std::vector<Name> unset;  // own_names.h
};

// INVALID_ARGUMENT names the line and what is wrong.
absl::StatusOr<std::unique_ptr<const Template>> Parse(std::string_view source);

}  // namespace sessa::jinja
