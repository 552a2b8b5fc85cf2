// The progress line: rewritten on a terminal and never wider than it, plain lines elsewhere.
#include "loadtest/progress.h"

#include <sstream>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa::loadtest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

LiveCounts At(double now) {
  LiveCounts counts;
  counts.now = now;
  counts.end = 60;
  counts.sent = static_cast<int64_t>(now * 10);
  counts.ok = static_cast<int64_t>(now * 8);
  counts.in_flight = counts.sent - counts.ok;
  counts.output_tokens = static_cast<int64_t>(now * 1500);
  return counts;
}

TEST(Progress, IsOneRewrittenLineOnATerminal) {
  std::ostringstream out;
  Progress progress({.out = &out, .is_terminal = true, .width = [] { return 120; }});
  progress.Start("2/5, 8 req/s");
  progress.Update(At(1));
  progress.Update(At(1.05));  // too soon to be shown
  progress.Update(At(4));
  progress.Finish();
  EXPECT_EQ(out.str(),
            "2/5, 8 req/s  [....................]  1/60 s  8 ok  2 in flight\r\x1b[K"
            "2/5, 8 req/s  [#...................]  4/60 s  32 ok  8 in flight  1.5k tok/s  8.0 req/s\r\x1b[K"
            "2/5, 8 req/s  [#...................]  4/60 s  32 ok  8 in flight  1.5k tok/s  8.0 req/s\n");
}

TEST(Progress, IsNeverWiderThanTheTerminal) {
  for (int width = 1; width < 150; ++width) {
    std::ostringstream out;
    Progress progress({.out = &out, .is_terminal = true, .width = [width] { return width; }});
    progress.Start("a label");
    for (double now = 0; now < 10; ++now) {
      LiveCounts counts = At(now);
      counts.failed = counts.cancelled = 1'000'000;
      counts.max_send_lag = 3;
      progress.Update(counts);
    }
    progress.Finish();
    std::string text = out.str();
    text.pop_back();  // the last line's end
    for (absl::string_view line : absl::StrSplit(text, "\r\x1b[K")) {
      EXPECT_LT(static_cast<int>(line.size()), width) << line;
    }
  }
}

TEST(Progress, IsPlainLinesElsewhere) {
  std::ostringstream out;
  Progress progress({.out = &out, .is_terminal = false});
  progress.Start("");
  for (double now = 0; now <= 11; now += 0.25) progress.Update(At(now));
  progress.Note("a note");
  progress.Finish();
  EXPECT_THAT(out.str(), Not(HasSubstr("\x1b")));
  EXPECT_THAT(absl::StrSplit(out.str(), '\n'),
              ElementsAre("5/60 s  40 ok  10 in flight  1.5k tok/s  8.0 req/s",
                          "10/60 s  80 ok  20 in flight  1.5k tok/s  8.0 req/s", "a note",
                          "11/60 s  88 ok  22 in flight  1.5k tok/s  8.0 req/s", ""));
}

TEST(Progress, NotesStandOnLinesOfTheirOwn) {
  std::ostringstream out;
  Progress progress({.out = &out, .is_terminal = true, .width = [] { return 80; }});
  progress.Start("");
  progress.Update(At(1));
  progress.Note("the server is gone");
  progress.Finish();
  EXPECT_THAT(out.str(), HasSubstr("\r\x1b[Kthe server is gone\n"));
}

TEST(Progress, NamesFailuresAndLag) {
  std::ostringstream out;
  Progress progress({.out = &out, .is_terminal = false});
  LiveCounts counts = At(3);
  counts.planned = 100;
  counts.failed = 7;
  counts.max_send_lag = 0.012;
  progress.Update(counts);
  progress.Finish();
  EXPECT_EQ(out.str(), "3/60 s  24/100 ok  7 failed  6 in flight  lag 12 ms\n");
}

TEST(Progress, WithoutAnOutputIsSilent) {
  Progress progress({});
  progress.Update(At(100));
  progress.Note("x");
  progress.Finish();
}

}  // namespace
}  // namespace sessa::loadtest
