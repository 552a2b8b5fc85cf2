// The access log's lines: one line each whatever a client wrote, the same facts in both formats.
#include "server/core/access_log.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

namespace sessa {
namespace {

AccessRecord Record() {
  AccessRecord r;
  r.protocol = "rest";
  r.endpoint = "/v2/models/a\nb/generate";
  r.status = "200";
  r.request_id = "id-1";
  r.duration = absl::Milliseconds(1500);
  r.time = absl::FromUnixMillis(1'000'000'001'500);
  return r;
}

TEST(AccessLogTest, TextIsOneLine) {
  AccessRecord r = Record();
  EXPECT_EQ(FormatAccess(r, AccessLogFormat::kText),
            R"(time=2001-09-09T01:46:41.500Z protocol=rest endpoint="/v2/models/a\nb/generate" status=200 )"
            "request_id=id-1 seconds=1.500");
  r.usage = Usage{.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
  r.error = "draining";
  EXPECT_EQ(
      FormatAccess(r, AccessLogFormat::kText),
      R"(time=2001-09-09T01:46:41.500Z protocol=rest endpoint="/v2/models/a\nb/generate" status=200 )"
      "request_id=id-1 seconds=1.500 prompt_tokens=3 cached_tokens=1 completion_tokens=2 error=draining");
}

TEST(AccessLogTest, JsonIsOneLine) {
  AccessRecord r = Record();
  r.usage = Usage{.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
  EXPECT_EQ(
      FormatAccess(r, AccessLogFormat::kJson),
      R"({"time":"2001-09-09T01:46:41.500Z","protocol":"rest","endpoint":"/v2/models/a\nb/generate","status":"200",)"
      R"("request_id":"id-1","seconds":1.5,"prompt_tokens":3,"cached_tokens":1,"completion_tokens":2})");
}

// Whatever a client sends as an id or a path: one line, one field each.
TEST(AccessLogTest, FieldsCannotBeForged) {
  for (const auto& [sent, logged] : {std::pair{"a status=500", R"("a status=500")"},
                                     {"a\tb", R"("a\tb")"},
                                     {"\"", R"("\"")"},
                                     {"a\\", R"("a\\")"},
                                     {"", R"("")"},
                                     {"id=1", R"("id=1")"},
                                     {"\x1b[2J\xc3\xa9", R"("\x1b[2J\xc3\xa9")"},
                                     {"plain/-_.:,{}", "plain/-_.:,{}"}}) {
    AccessRecord r = Record();
    r.endpoint = r.request_id = sent;
    EXPECT_EQ(FormatAccess(r, AccessLogFormat::kText),
              absl::StrCat("time=2001-09-09T01:46:41.500Z protocol=rest endpoint=", logged,
                           " status=200 request_id=", logged, " seconds=1.500"));
  }
  AccessRecord r = Record();
  r.request_id = std::string(1 << 20, ' ');
  EXPECT_LT(FormatAccess(r, AccessLogFormat::kText).size(), 1000);
  EXPECT_LT(FormatAccess(r, AccessLogFormat::kJson).size(), 1000);
}

}  // namespace
}  // namespace sessa
