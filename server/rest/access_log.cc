// See access_log.h. One write a line, so that lines of several threads do not mix.
#include "server/rest/access_log.h"

#include <cstdio>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sessa {

void WriteAccessLine(const Exchange& exchange, int status, const GenerationCall* call) {
  // The path was matched against the routes, but the model's name in it is the client's: no line breaks.
  std::string line = absl::StrFormat("rest %s %s %d id=%s seconds=%.3f", exchange.head.method,
                                     absl::CHexEscape(exchange.head.path), status, exchange.head.request_id,
                                     absl::ToDoubleSeconds(absl::Now() - exchange.start));
  if (call != nullptr) {
    const Usage usage = call->usage();
    absl::StrAppend(&line, " prompt_tokens=", usage.prompt_tokens, " cached_tokens=", usage.cached_tokens,
                    " completion_tokens=", usage.completion_tokens);
    if (call->ended() && !call->status().ok()) {
      absl::StrAppend(&line, " error=", absl::StatusCodeToString(call->status().code()));
    }
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace sessa
