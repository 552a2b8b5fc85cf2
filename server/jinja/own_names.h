// Jinja2's rule of names: a name that a block sets is the block's own from the block's beginning, and has no
// value until it is set there, unless the block read it first or sets it in an `if` alone
// (jinja2/idtracking.py). Who looks names up when they are used would see an outer value instead, from inside
// of a nested block.
#pragma once

#include "server/jinja/ast.h"

namespace sessa::jinja {

// Fills `unset` and `otherwise_unset` of every statement of `body`; returns the names of `body` itself.
std::vector<Name> FindOwnNames(Block* body);

}  // namespace sessa::jinja
