// See version.h. CMake defines SESSA_VERSION for this file alone, so that a new version compiles nothing else.
#include "flags/version.h"

namespace sessa {

const char kVersion[] = SESSA_VERSION;

}  // namespace sessa
