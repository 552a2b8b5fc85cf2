// The access log's line for one generation request, on stderr.
#pragma once

#include "server/rest/generation_call.h"
#include "server/rest/handlers.h"

namespace sessa {

// `call` null: it was refused.
void WriteAccessLine(const Exchange& exchange, int status, const GenerationCall* call);

}  // namespace sessa
