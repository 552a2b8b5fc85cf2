// GET /: a page to try completions with and to watch the load. One string, nothing is fetched from elsewhere.
#pragma once

#include <string>

namespace sessa {

const std::string& WebPage();

}  // namespace sessa
