#pragma once

#include <boost/json/value.hpp>

#include "server/jinja/budget.h"
#include "server/jinja/value.h"

namespace sessa::jinja {

// Numbers beyond 64 bits become reals. Recurses as deep as the JSON, which its parser has bounded.
Value FromJson(const boost::json::value& json, Budget* budget);

}  // namespace sessa::jinja
