// What the kernels have to tell whoever runs the process: that something goes another, slower way than it
// could. Few lines, at start-up. Thread-safe.
#pragma once

#include "absl/strings/string_view.h"

namespace sessa {

// Where notices go; null, as at first: stderr. Set before the first backend is made. It must not call back.
using NoticeSink = void (*)(absl::string_view text);
void SetNotice(NoticeSink sink);

void Notice(absl::string_view text);

}  // namespace sessa
