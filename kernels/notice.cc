// See notice.h.
#include "kernels/notice.h"

#include <atomic>
#include <cstdio>

namespace sessa {
namespace {

std::atomic<NoticeSink> notice_sink{nullptr};

}  // namespace

void SetNotice(NoticeSink sink) { notice_sink = sink; }

void Notice(absl::string_view text) {
  if (const NoticeSink sink = notice_sink) return sink(text);
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

}  // namespace sessa
