// Which class of outcome an answer's status is.
#pragma once

#include <string>

#include "loadtest/record.h"

namespace sessa::loadtest {

// The outcome that an HTTP status other than 200 stands for.
Outcome OutcomeOfHttpStatus(int status);
// The outcome of a gRPC status other than OK. `answered`: a message had come before it.
Outcome OutcomeOfGrpcStatus(int code, bool answered);
// The outcome of an error object inside an SSE stream; `code` is its "code" as text (a number or a word),
// `type` its "type".
Outcome OutcomeOfStreamError(const std::string& code, const std::string& type);

// When the tokens of events were guessed (an event without ids counts as one) and the server says in the end
// that there were `total`: shares the total out evenly over the events, so that the sum is right.
void SpreadTokens(int total, std::vector<TokenEvent>* events);

}  // namespace sessa::loadtest
