// The version of this tree: CMakeLists.txt's, the one place where it is written.
#pragma once

namespace sessa {

extern const char kVersion[];  // "1.2.3"

}  // namespace sessa
