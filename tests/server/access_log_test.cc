// The access log's lines: one line each whatever a client wrote, the same facts in both formats.
#include "server/core/access_log.h"

#include "gmock/gmock.h"

namespace sessa {
namespace {

AccessRecord Record() {
  AccessRecord r;
  r.protocol = "rest";
  r.endpoint = "/v2/models/a\nb/generate";
  r.status = "200";
  r.request_id = "id-1";
  r.start = absl::FromUnixSeconds(1'000'000'000);
  r.end = r.start + absl::Milliseconds(1500);
  return r;
}

TEST(AccessLogTest, TextIsOneLine) {
  AccessRecord r = Record();
  EXPECT_EQ(FormatAccess(r, AccessLogFormat::kText),
            "2001-09-09T01:46:41.500Z rest /v2/models/a\\nb/generate 200 id=id-1 seconds=1.500\n");
  r.usage = Usage{.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
  r.error = "draining";
  EXPECT_EQ(
      FormatAccess(r, AccessLogFormat::kText),
      "2001-09-09T01:46:41.500Z rest /v2/models/a\\nb/generate 200 id=id-1 seconds=1.500 prompt_tokens=3 "
      "cached_tokens=1 completion_tokens=2 error=draining\n");
}

TEST(AccessLogTest, JsonIsOneLine) {
  AccessRecord r = Record();
  r.usage = Usage{.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
  EXPECT_EQ(
      FormatAccess(r, AccessLogFormat::kJson),
      R"({"time":"2001-09-09T01:46:41.500Z","protocol":"rest","endpoint":"/v2/models/a\nb/generate","status":"200",)"
      R"("request_id":"id-1","seconds":1.5,"prompt_tokens":3,"cached_tokens":1,"completion_tokens":2})"
      "\n");
}

}  // namespace
}  // namespace sessa
