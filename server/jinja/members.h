// of.name, of[key] and of[a:b:c], as the sandbox lets templates at them.
#pragma once

#include <string>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// Undefined where there is none; fails for a member of something undefined. `name` outlives the value.
Value Attribute(const Value& of, const std::string* name, Budget* budget);
// `name`: the key when it is written in the template, for errors; may be null.
Value Item(const Value& of, const Value& key, const std::string* name, Budget* budget);
// bounds: begin, end and step; none where left out.
Value Slice(const Value& of, const Value (&bounds)[3], Budget* budget);

}  // namespace sessa::jinja
