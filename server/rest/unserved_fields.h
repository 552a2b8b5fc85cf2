// Fields of OpenAI's, vLLM's and other servers' requests that would constrain or change the answer and are
// not served here: each is an error that names it, unless it asks for what is done anyway. An answer without
// what it asked for would be worse than none.
#pragma once

#include "server/rest/fields.h"

namespace sessa {

void RefuseUnserved(Fields& fields, ReadLog* log);
std::vector<std::string> UnservedFields();  // their names

// The error of such a field.
absl::Status Unserved(const std::string& path);

}  // namespace sessa
