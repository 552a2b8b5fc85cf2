// The log's queue against readers that are slow, gone or out of space: who writes never waits, and every line
// is either read or counted.
#include "server/core/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"

namespace sessa {
namespace {

struct Pipe {
  Pipe() {
    signal(SIGPIPE, SIG_IGN);  // as the server has it: a writer that nobody waited for may still write
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  }
  ~Pipe() {
    for (int fd : ends) close(fd);
  }
  // Reads until `last` has come.
  std::vector<std::string> ReadLines(const std::string& last) {
    std::string text;
    while (text.find(last + "\n") == std::string::npos) {
      char buffer[4096];
      const ssize_t n = read(ends[0], buffer, sizeof(buffer));
      if (n <= 0) break;
      text.append(buffer, n);
    }
    return absl::StrSplit(text, '\n', absl::SkipEmpty());
  }
  std::string ReadLine() {
    std::string line;
    for (char c; read(ends[0], &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }
  int ends[2];
};

TEST(LogTest, LinesOfManyThreadsComeWhole) {
  Pipe pipe;
  LineWriter log(pipe.ends[1]);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&log, t] {
      for (int i = 0; i < 500; ++i) log.Write(absl::StrCat(t, std::string(20, 'x'), "\n", i));
    });
  }
  std::thread ender([&] {
    for (std::thread& thread : threads) thread.join();
    log.Write("end");
  });
  const std::vector<std::string> lines = pipe.ReadLines("end");
  ender.join();
  ASSERT_EQ(lines.size(), 2001);
  std::vector<int> next(4, 0);
  for (size_t i = 0; i < 2000; ++i) {
    const int t = lines[i][0] - '0';
    EXPECT_EQ(lines[i], absl::StrCat(t, std::string(20, 'x'), " ", next[t]++));
  }
  EXPECT_EQ(log.num_dropped(), 0);
}

TEST(LogTest, AReaderThatStopsCostsLinesAndNoTime) {
  Pipe pipe;
  LineWriter log(pipe.ends[1], 1 << 12);
  constexpr int kLines = 20000;  // far above the pipe's 64 KiB, the writer's and the queue's 4 KiB
  for (int i = 0; i < kLines; ++i) log.Write(absl::StrCat("line ", i));
  EXPECT_FALSE(log.Flush(absl::ZeroDuration()));  // bounded: nobody reads
  const int64_t dropped = log.num_dropped();
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, kLines);
  // What is read and what is told of as dropped make up all, in order: a line never comes before its elders.
  int64_t num_told = 0, num_read = 0;
  int last = -1;
  while (num_told + num_read < kLines) {
    const std::string line = pipe.ReadLine();
    int number = 0;
    absl::string_view text = line;
    if (absl::ConsumePrefix(&text, "line ")) {
      ASSERT_TRUE(absl::SimpleAtoi(text, &number));
      ASSERT_GT(number, last);
      last = number;
      ++num_read;
    } else {
      ASSERT_TRUE(absl::ConsumeSuffix(&text, " log lines dropped") && absl::SimpleAtoi(text, &number))
          << line;
      num_told += number;
    }
  }
  EXPECT_EQ(num_told, dropped);
  log.Write("back");
  EXPECT_EQ(pipe.ReadLines("back").size(), 1u);
  EXPECT_TRUE(log.Flush(absl::InfiniteDuration()));
}

TEST(LogTest, TransientLinesGiveWay) {
  Pipe pipe;
  LineWriter log(pipe.ends[1], 1 << 12);
  for (int i = 0; i < 1000; ++i) log.WriteTransient(absl::StrCat("bar ", i));  // never more than one that waits
  EXPECT_EQ(log.num_dropped(), 0);
  log.Write("line");
  log.WriteTransient(std::string(1000, 'x'));  // cut
  log.Write("end");
  const std::vector<std::string> lines = pipe.ReadLines("end");
  ASSERT_EQ(lines.size(), 2);
  EXPECT_THAT(lines[0], ::testing::EndsWith("\x1b[Kbar 999\r\x1b[Kline"));
  EXPECT_EQ(lines[1], absl::StrCat("\x1b[K", std::string(LineWriter::kMaxTransientBytes, 'x'), "\r\x1b[Kend"));
}

TEST(LogTest, LinesHaveATimeAndALevel) {
  const absl::Time time = absl::FromUnixMillis(1'000'000'001'500);
  EXPECT_EQ(LogLine(time, LogLevel::kWarning, "it's \"so\"", LogFormat::kText),
            "2001-09-09T01:46:41.500Z warning it's \"so\"");
  EXPECT_EQ(LogLine(time, LogLevel::kError, "a\n\xff", LogFormat::kJson),
            "{\"time\":\"2001-09-09T01:46:41.500Z\",\"level\":\"error\",\"message\":\"a\\n\xef\xbf\xbd\"}");
}

TEST(LogTest, AnEndDoesNotWaitForTheReader) {
  Pipe pipe;
  LineWriter log(pipe.ends[1]);
  for (int i = 0; i < 10000; ++i) log.Write("a line that fills the pipe");
}

TEST(LogTest, FullDisksAndClosedPipesCount) {
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  LineWriter to_full(full);
  Pipe pipe;
  close(pipe.ends[0]);
  pipe.ends[0] = -1;
  LineWriter to_closed(pipe.ends[1]);
  for (LineWriter* log : {&to_full, &to_closed}) {
    for (int i = 0; i < 100; ++i) log->Write(std::string(100, 'x'));
    EXPECT_TRUE(log->Flush(absl::InfiniteDuration()));
    EXPECT_EQ(log->num_dropped(), 100);
  }
  close(full);
}

TEST(LogTest, ShortWritesGoOn) {
  Pipe pipe;  // filled and not blocking, it takes parts of lines
  ASSERT_EQ(fcntl(pipe.ends[1], F_SETFL, O_NONBLOCK), 0);
  LineWriter log(pipe.ends[1]);
  constexpr int kLines = 3000;
  for (int i = 0; i < kLines; ++i) log.Write(absl::StrCat(i, std::string(50, 'x')));
  log.Write("end");
  EXPECT_EQ(pipe.ReadLines("end").size(), kLines + 1);
}

TEST(LogTest, ALineThatWasCutIsEndedBeforeTheNext) {
  signal(SIGXFSZ, SIG_IGN);
  char path[] = "/tmp/sessa_log_XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit tight = {15, limit.rlim_max};
  LineWriter log(file);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  log.Write("123456789");
  log.Write("abcdefghi");
  EXPECT_TRUE(log.Flush(absl::InfiniteDuration()));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  log.Write("space again");
  EXPECT_TRUE(log.Flush(absl::InfiniteDuration()));
  char text[100] = {};
  EXPECT_GT(pread(file, text, sizeof(text), 0), 0);
  EXPECT_STREQ(text, "123456789\nabcde\nspace again\n1 log lines dropped\n");
  close(file);
  unlink(path);
}

}  // namespace
}  // namespace sessa
