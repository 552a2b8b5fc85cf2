// The access log's lines: one line each whatever a client wrote, the same facts in both formats.
#include "server/core/access_log.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

AccessRecord Refused() {
  AccessRecord r;
  r.protocol = "rest";
  r.endpoint = "/v2/models/a\nb/generate";
  r.status = "400";
  r.request_id = "id-1";
  r.duration = absl::Milliseconds(1500);
  r.time = absl::FromUnixMillis(1'000'000'001'500);
  r.client = "127.0.0.1:80";
  r.error = "invalid_value";
  r.reason = "n: must be 1";
  return r;
}

AccessRecord Served() {
  AccessRecord r = Refused();
  r.status = "200";
  r.error = r.reason = "";
  r.tenant = "a team";
  r.model = "demo";
  r.usage = Usage{.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};
  r.times = {absl::Milliseconds(5), absl::Microseconds(20250), "stop"};
  return r;
}

TEST(AccessLogTest, TextIsOneLine) {
  const std::string head =
      R"(2001-09-09T01:46:41.500Z info request protocol=rest endpoint="/v2/models/a\nb/generate" status=)";
  EXPECT_EQ(FormatAccess(Refused(), LogFormat::kText),
            absl::StrCat(head, "400 request_id=id-1 client=127.0.0.1:80 seconds=1.500 error=invalid_value ",
                         R"(reason="n: must be 1")"));
  EXPECT_EQ(FormatAccess(Served(), LogFormat::kText),
            absl::StrCat(head, R"(200 request_id=id-1 client=127.0.0.1:80 tenant="a team" model=demo )",
                         "seconds=1.500 queue_seconds=0.005 ttft_seconds=0.020 prompt_tokens=3 cached_tokens=1 ",
                         "completion_tokens=2 finish_reason=stop"));
}

TEST(AccessLogTest, JsonIsOneLine) {
  EXPECT_EQ(
      FormatAccess(Served(), LogFormat::kJson),
      R"({"time":"2001-09-09T01:46:41.500Z","level":"info","message":"request","protocol":"rest",)"
      R"("endpoint":"/v2/models/a\nb/generate","status":"200","request_id":"id-1","client":"127.0.0.1:80",)"
      R"("tenant":"a team","model":"demo","seconds":1.5,"queue_seconds":0.005,"ttft_seconds":0.02025,)"
      R"("prompt_tokens":3,"cached_tokens":1,"completion_tokens":2,"finish_reason":"stop"})");
}

TEST(AccessLogTest, TheServersOwnFaultsAreErrors) {
  for (const char* status : {"500", "INTERNAL"}) {
    AccessRecord r = Refused();
    r.status = status;
    EXPECT_THAT(FormatAccess(r, LogFormat::kText), HasSubstr(" error request "));
  }
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
    AccessRecord r = Refused();
    r.endpoint = r.request_id = r.reason = sent;
    const std::string line = FormatAccess(r, LogFormat::kText);
    EXPECT_THAT(line, HasSubstr(absl::StrCat(" endpoint=", logged, " status=400 request_id=", logged, " client=")));
    if (!r.reason.empty()) {
      EXPECT_THAT(line, HasSubstr(absl::StrCat(" reason=", logged)));
    }
  }
  AccessRecord r = Refused();
  r.request_id = r.reason = std::string(1 << 20, ' ');
  EXPECT_LT(FormatAccess(r, LogFormat::kText).size(), 2000);
  EXPECT_LT(FormatAccess(r, LogFormat::kJson).size(), 2000);
}

}  // namespace
}  // namespace sessa
