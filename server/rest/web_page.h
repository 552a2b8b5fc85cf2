// The page at "/": its files (server/rest/web, and Chart.js) are part of the binary and are served to anyone,
// as they hold no secret; what the page asks of the API needs a key like any other request. Thread-safe.
#pragma once

#include <string>

#include "server/rest/http_message.h"

namespace sessa {

// The file at `path` ("/" or "/web/..."): 200, 304 when `if_none_match` names its ETag, or 404.
Reply WebReply(const std::string& path, const std::string& if_none_match);

}  // namespace sessa
