// Progress while weights are read: what a line says, and who gets which lines.
#include "server/core/load_progress.h"

#include <unistd.h>

#include <atomic>

#include "gmock/gmock.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGiB = int64_t{1} << 30;

TEST(LoadProgressTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1 KiB");
  EXPECT_EQ(FormatBytes(3 * kGiB / 2), "1.5 GiB");
  EXPECT_EQ(FormatBytes(5000 * kGiB), "4.88 TiB");
}

TEST(LoadProgressTest, Bar) {
  EXPECT_EQ(ProgressBar(0, 4 * kGiB, absl::ZeroDuration()),
            "weights [                              ]   0 %  0 B of 4 GiB");
  EXPECT_EQ(ProgressBar(kGiB, 4 * kGiB, absl::Seconds(2)),
            "weights [#######                       ]  25 %  1 GiB of 4 GiB, 6 s left");
  EXPECT_EQ(ProgressBar(5 * kGiB, 4 * kGiB, absl::Seconds(2)),  // what was read twice
            "weights [##############################] 100 %  4 GiB of 4 GiB");
  EXPECT_THAT(ProgressBar(0, 0, absl::Seconds(2)), HasSubstr("100 %"));
}

// What a pipe gets until `end` has come.
std::string Read(int fd, const std::string& end) {
  std::string text;
  char c = 0;
  while (text.find(end) == std::string::npos && read(fd, &c, 1) == 1) text += c;
  return text;
}

TEST(LoadProgressTest, ATerminalHasABarAndOthersLines) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  LineWriter log(ends[1]);
  std::atomic<int64_t> done{0};
  LoadProgress::Options options;
  options.bar_interval = options.line_interval = absl::Milliseconds(1);
  {
    options.is_terminal = true;
    const LoadProgress progress([&done] { return done.load(); }, 1024, &log, options);
    done = 512;
    EXPECT_THAT(Read(ends[0], " 50 %  512 B of 1 KiB"), Not(HasSubstr("\n")));
  }
  log.Write("then");
  EXPECT_THAT(Read(ends[0], "then\n"), HasSubstr("\r\x1b[Kthen\n"));
  options.is_terminal = false;
  const LoadProgress progress([&done] { return done.load(); }, 1024, &log, options);
  EXPECT_THAT(Read(ends[0], "1 KiB\n"), HasSubstr(" info weights [###############               ]  50 %"));
}

}  // namespace
}  // namespace sessa
