// The reports of known runs, read back: the table's shape, JSON, CSV, the page's data; and that files are
// whole or not there.
#include "loadtest/report.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/definitions.h"
#include "loadtest/text.h"
#include "tests/loadtest/synthetic_runs.h"

namespace sessa::loadtest {
namespace {

using ::testing::ContainsRegex;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

namespace json = boost::json;
using OneRun = sessa::loadtest::Run;  // testing::Test has a member Run

class ReportTest : public testing::Test {
 protected:
  ReportTest() : directory_(testing::TempDir() + absl::StrCat("loadtest_report_", getpid())) {
    std::filesystem::create_directories(directory_);
  }
  ~ReportTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  static std::string Table(const std::vector<OneRun>& runs, const std::string& slo = "") {
    std::ostringstream out;
    ReportOptions options;
    options.slo = *ParseSlo(slo);
    options.table = &out;
    EXPECT_TRUE(WriteReports(runs, options).ok());
    return out.str();
  }

  std::string Csv(const std::vector<OneRun>& runs) const {
    ReportOptions options;
    options.csv_path = Path("requests.csv");
    EXPECT_TRUE(WriteReports(runs, options).ok());
    return Read(options.csv_path);
  }

  json::value Json(const std::vector<OneRun>& runs, const std::string& slo = "") const {
    ReportOptions options;
    options.slo = *ParseSlo(slo);
    options.json_path = Path("report.json");
    EXPECT_TRUE(WriteReports(runs, options).ok());
    return json::parse(Read(options.json_path));
  }

  // What the page carries for its script.
  json::value PageData(const OneRun& run) const {
    ReportOptions options;
    options.html_path = Path("page.html");
    EXPECT_TRUE(WriteReports({run}, options).ok());
    const std::string page = Read(options.html_path);
    const std::string begin = "<script type=\"application/json\" id=\"data\">";
    const size_t from = page.find(begin) + begin.size();
    return json::parse(page.substr(from, page.find("</script>", from) - from));
  }

  const std::string directory_;
};

// One request whose figures are easy: sent at 1 s, tokens at 1.1 s, 1.2 s, 1.4 s.
OneRun SmallRun() {
  OneRun run;
  run.title = "Small";
  run.server = "http://127.0.0.1:1, REST";
  run.model = "m";
  run.offered_rate = 0.5;
  run.duration = 2;
  run.client = {0.001, 0.0005, 0.002, 0.25, "", 0.0001};
  RequestRecord request;
  request.kind = "chat";
  request.scheduled = request.sent = 1;
  request.headers = 1.05;
  request.events = {{1.1, 1}, {1.2, 1}, {1.4, 1}};
  request.ended = 1.5;
  request.input_tokens = 7;
  request.output_tokens = 3;
  request.finish_reason = "length";
  request.status = 200;
  run.requests = {request};
  return run;
}

TEST_F(ReportTest, TableOfASmallRun) {
  const std::string table = Table({SmallRun()}, "ttft:200ms");
  EXPECT_THAT(table, HasSubstr(R"(
Small
  server  http://127.0.0.1:1, REST, model m
  load    0.5 req/s
  window  0.0 s to 2.0 s of 2.0 s; requests: 1 in it, 0 outside

Latency, ms       mean     p50     p90     p95     p99   p99.9     max   count
TTFT             100.0   100.0   100.0   100.0   100.0   100.0   100.0       1
TTFT from send   100.0   100.0   100.0   100.0   100.0   100.0   100.0       1
TPOT             150.0   150.0   150.0   150.0   150.0   150.0   150.0       1
ITL              150.0   150.0   190.0   195.0   199.0   199.9   200.0       2
E2E              500.0   500.0   500.0   500.0   500.0   500.0   500.0       1
E2E from send    500.0   500.0   500.0   500.0   500.0   500.0   500.0       1
Send lag         0.000   0.000   0.000   0.000   0.000   0.000   0.000       1

Objectives (SLO): ttft:200ms
  Requests/s           0.50        Output tokens              3
  Goodput              0.50        Input tokens               7
  Kept the SLO      100.0 %        Mean concurrency        0.25
  Failed              0.0 %        Max concurrency            1
  Output tokens/s      1.50        Multi-token events     0.0 %
  Input tokens/s       3.50
Outcomes: ok 1
Worst gap: 200 ms, at 1.40 s, in request 0
Client's lag at p99 and at most: sends 0.50 ms, 1.00 ms; loop 0.10 ms, 2.00 ms; CPU 0.25 cores
)"));
}

TEST_F(ReportTest, TableFitsAHundredColumns) {
  SyntheticLoad load;
  load.num_requests = 300;
  load.failure = std::string(300, 'x') + " " + std::string(60, 'y');
  OneRun run = MakeRun(load, 1);
  run.title = std::string(300, 't');
  run.requests[0].kind = run.requests[0].tenant = std::string(300, 'k');
  run.requests[2].kind = "gr\xC3\xBC\xC3\x9F\x65\x1b[31m";
  run.requests[4].outcome = Outcome::kServerError;
  run.requests[4].error = std::string(300, 'e');
  run.requests[6].events.back().at = run.requests[6].ended = 123456;  // a gap of 34 hours
  for (const std::string& table : {Table({run}, "ttft:1ms"), Table({run, run}, "ttft:1ms")}) {
    for (absl::string_view line : absl::StrSplit(table, '\n')) {
      if (absl::StrContains(line, "xxx")) continue;  // a word that long is not broken
      const auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
      EXPECT_LE(columns, 100) << line;
    }
    EXPECT_THAT(table, Not(HasSubstr("\x1b")));
    EXPECT_THAT(table, HasSubstr("SELF-CHECK FAILED"));
  }
}

TEST_F(ReportTest, TableOfASweepHasARowARate) {
  std::vector<OneRun> runs;
  for (double rate : {2.0, 8.0, 32.0}) {
    SyntheticLoad load;
    load.num_requests = 100;
    load.rate = rate;
    if (rate == 32) load.failure = "late";
    runs.push_back(MakeRun(load, 1));
    runs.back().title = absl::StrCat(rate, " requests/s");
  }
  const std::string table = Table(runs);
  EXPECT_THAT(table, HasSubstr("\nSweep from 2 req/s to 32 req/s\n  server "));
  EXPECT_THAT(table, ContainsRegex("Load +good +failed"));
  EXPECT_THAT(table, ContainsRegex("\n2 req/s +- +1\\.. %"));  // no objectives were stated
  EXPECT_THAT(table, ContainsRegex("\n32 req/s ! "));
  EXPECT_THAT(table, HasSubstr("! 32 req/s: SELF-CHECK FAILED: late. Do not"));
}

TEST_F(ReportTest, TableOfNothing) {
  EXPECT_EQ(Table({}), "Nothing was run.\n");
  OneRun run;
  run.num_users = 1;
  EXPECT_THAT(Table({run}), HasSubstr("load    1 user\n"));
}

TEST_F(ReportTest, JsonReadBack) {
  OneRun late = SmallRun();
  late.client.failure = "too late";
  late.requests[0].outcome = Outcome::kBroken;
  late.requests[0].error = "the stream broke off";
  const json::value report = Json({SmallRun(), late}, "ttft:200ms");
  EXPECT_EQ(report.at("schema"), "sessa-loadtest");
  EXPECT_EQ(report.at("version"), 1);
  EXPECT_EQ(report.at("slo"), "ttft:200ms");
  const json::value& run = report.at("runs").at(0);
  EXPECT_EQ(run.at("title"), "Small");
  EXPECT_EQ(run.at("users"), nullptr);
  EXPECT_EQ(run.at("self_check").at("ok"), true);
  EXPECT_EQ(run.at("all").at("requests"), 1);
  EXPECT_EQ(run.at("all").at("outcomes").at("ok"), 1);
  EXPECT_NEAR(run.at("all").at("latencies").at("ttft").at("p50").to_number<double>(), 0.1, 1e-9);
  EXPECT_NEAR(run.at("all").at("latencies").at("itl").at("p999").to_number<double>(), 0.1999, 1e-9);
  EXPECT_EQ(run.at("all").at("latencies").at("queue").at("p50"), nullptr);
  EXPECT_NEAR(run.at("all").at("worst_gap").at("at").to_number<double>(), 1.4, 1e-9);
  EXPECT_EQ(run.at("all").at("figures").at("cached_share"), nullptr);
  EXPECT_EQ(run.at("all").at("figures").at("goodput").to_number<double>(), 0.5);
  EXPECT_EQ(run.at("probes"), nullptr);
  EXPECT_EQ(run.at("server_metrics"), nullptr);
  const json::value& other = report.at("runs").at(1);
  EXPECT_EQ(other.at("self_check").at("ok"), false);
  EXPECT_EQ(other.at("all").at("errors").at("broken"), "the stream broke off");
  // Whatever stands in a report is defined in it.
  const json::value& definitions = report.at("definitions");
  EXPECT_EQ(definitions.at("latencies").as_array().size(), run.at("all").at("latencies").as_object().size());
  EXPECT_EQ(definitions.at("figures").as_array().size(), run.at("all").at("figures").as_object().size());
  EXPECT_EQ(definitions.at("outcomes").as_array().size(), run.at("all").at("outcomes").as_object().size());
}

TEST_F(ReportTest, JsonHasTheServersMetrics) {
  SyntheticLoad load;
  load.num_requests = 50;
  const json::value run = Json({MakeRun(load, 1)}).at("runs").at(0);
  EXPECT_GT(run.at("server_metrics").at("samples").as_int64(), 5);
  EXPECT_NEAR(run.at("server_metrics").at("figures").at("cache_hit_share").to_number<double>(), 0.42, 1e-9);
  EXPECT_EQ(run.at("kinds").as_array().size(), 2);
  EXPECT_EQ(run.at("probes").at("requests").as_int64() + run.at("all").at("requests").as_int64() +
                run.at("window").at("requests_outside").as_int64(),
            50);
}

// Rows of RFC 4180.
std::vector<std::vector<std::string>> ParseCsv(const std::string& text) {
  std::vector<std::vector<std::string>> rows(1);
  std::string cell;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        cell += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        cell += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',' || c == '\r') {
      rows.back().push_back(std::move(cell));
      cell.clear();
      if (c == '\r' && ++i + 1 < text.size()) rows.emplace_back();
    } else {
      cell += c;
    }
  }
  return rows;
}

TEST_F(ReportTest, CsvReadBack) {
  OneRun run = SmallRun();
  RequestRecord failed;
  failed.index = 1;
  failed.kind = "a,\"b\"\r\nc";
  failed.outcome = Outcome::kConnect;
  failed.error = "no, \"never\"";
  failed.scheduled = 1.5;
  run.requests.push_back(failed);
  const auto rows = ParseCsv(Csv({run, run}));
  ASSERT_EQ(rows.size(), 5);
  EXPECT_THAT(rows, Each(SizeIs(rows[0].size())));
  auto cell = [&](int row, const std::string& column) {
    const auto it = std::find(rows[0].begin(), rows[0].end(), column);
    EXPECT_NE(it, rows[0].end()) << column;
    return rows[row][it - rows[0].begin()];
  };
  EXPECT_EQ(cell(1, "run"), "0");
  EXPECT_EQ(cell(3, "run"), "1");
  EXPECT_EQ(cell(1, "kind"), "chat");
  EXPECT_EQ(cell(1, "ttft"), "0.100000");
  EXPECT_EQ(cell(1, "longest_gap"), "0.200000");
  EXPECT_EQ(cell(1, "e2e"), "0.500000");
  EXPECT_EQ(cell(1, "conversation"), "");
  EXPECT_EQ(cell(1, "outcome"), "ok");
  EXPECT_EQ(cell(2, "kind"), failed.kind);
  EXPECT_EQ(cell(2, "error"), failed.error);
  EXPECT_EQ(cell(2, "sent"), "");
  EXPECT_EQ(cell(2, "ttft"), "");
  EXPECT_EQ(cell(2, "outcome"), "connect");
}

TEST_F(ReportTest, PageKeepsMarkupInItsData) {
  OneRun run = SmallRun();
  const std::string markup = "</script><script>alert(1)</script><!--<script>";
  run.title = run.model = run.requests[0].kind = run.requests[0].error = run.client.failure = markup;
  run.options = {{markup, markup}};
  const json::value data = PageData(run);
  const std::string page = Read(Path("page.html"));
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, Not(HasSubstr("{{")));
  EXPECT_EQ(data.at("runs").at(0).at("title").as_string(), markup);
  EXPECT_EQ(data.at("plots").as_array().size(), 1);
}

TEST_F(ReportTest, FilesAreWholeOrNotThere) {
  ReportOptions options;
  options.json_path = Path("missing/report.json");
  options.csv_path = Path("requests.csv");
  options.html_path = Path("missing/page.html");
  const absl::Status status = WriteReports({SmallRun()}, options);
  EXPECT_THAT(status.message(), HasSubstr(options.json_path));
  EXPECT_THAT(status.message(), HasSubstr(options.html_path));
  EXPECT_THAT(status.message(), HasSubstr("No such file"));
  EXPECT_THAT(Read(options.csv_path), HasSubstr("length"));  // the one that could be written was

  std::filesystem::create_directories(Path("directory"));
  options = {};
  options.csv_path = Path("directory");
  EXPECT_FALSE(WriteReports({SmallRun()}, options).ok());

  options.csv_path = "/dev/full";  // takes no byte, as a full disk
  EXPECT_THAT(WriteReports({SmallRun()}, options).message(), HasSubstr("No space left"));
  EXPECT_TRUE(std::filesystem::exists("/dev/full"));
  int left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    left += absl::EndsWith(entry.path().string(), ".tmp");
  }
  EXPECT_EQ(left, 0);
}

TEST_F(ReportTest, EveryKeyIsDocumented) {
  const std::string documented = Read(SESSA_RESULTS_DOC);
  SyntheticLoad load;
  load.num_requests = 50;
  const OneRun run = MakeRun(load, 1);
  const json::value report = Json({run});
  std::vector<std::string> keys;
  auto add = [&](const json::value& object) {
    for (const auto& [key, value] : object.as_object()) keys.emplace_back(key);
  };
  const json::value& one = report.at("runs").at(0);
  add(one);
  for (const char* key : {"self_check", "window", "all"}) add(one.at(key));
  for (const char* key : {"outcomes", "latencies", "worst_gap", "figures"}) add(one.at("all").at(key));
  add(one.at("all").at("latencies").at("itl"));
  add(one.at("server_metrics").at("figures"));
  const auto rows = ParseCsv(Csv({run}));
  keys.insert(keys.end(), rows[0].begin(), rows[0].end());
  for (const std::string& key : keys) EXPECT_THAT(documented, HasSubstr(absl::StrCat("`", key, "`")));
}

TEST(FigureText, HasThreeDigitsAndItsUnit) {
  EXPECT_EQ(FigureText(0.0000125, Unit::kSeconds), "0.01 ms");
  EXPECT_EQ(FigureText(0.01234, Unit::kSeconds), "12.3 ms");
  EXPECT_EQ(FigureText(1.2344, Unit::kSeconds), "1,234 ms");
  EXPECT_EQ(FigureText(12.34, Unit::kSeconds), "12.3 s");
  EXPECT_EQ(FigureText(0.5, Unit::kShare), "50.0 %");
  EXPECT_EQ(FigureText(0.0002, Unit::kShare), "0.020 %");
  EXPECT_EQ(FigureText(1234567, Unit::kTokens), "1,234,567");
  EXPECT_EQ(FigureText(kNever, Unit::kTokens), "-");
}

}  // namespace
}  // namespace sessa::loadtest
