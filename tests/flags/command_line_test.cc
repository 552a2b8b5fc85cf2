// The command line of a made-up program: where values come from, which one counts, and what errors say.
#include "flags/command_line.h"

#include <cstdlib>
#include <fstream>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "flags/units.h"
#include "flags/version.h"
#include "gmock/gmock.h"

ABSL_FLAG(int32_t, http_port, 8000, "where it listens");
ABSL_FLAG(bool, caching, true, "keeps what was read");
ABSL_FLAG(std::string, name_of_it, "", "what it is called");
ABSL_FLAG(sessa::ByteSize, cache_bytes, {1 << 20}, "what it may keep");

namespace sessa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CommandLineTest : public testing::Test {
 protected:
  absl::StatusOr<CommandLine> Read(std::vector<std::string> words) {
    words.insert(words.begin(), "program");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    return ReadCommandLine(program_, static_cast<int>(argv.size()), argv.data());
  }
  std::string ErrorOf(const std::vector<std::string>& words) {
    return std::string(Read(words).status().message());
  }
  std::string File(const std::string& name, const std::string& content) {
    const std::string path = absl::StrCat(testing::TempDir(), "/", name);
    std::ofstream(path) << content;
    return path;
  }

  const Program program_ = {"program",
                            "program: does it.\n",
                            "TEST_PROGRAM_",
                            {{"Where", {"http_port"}}, {"What", {"caching", "name_of_it", "cache_bytes"}}}};
  absl::FlagSaver saver_;
};

TEST_F(CommandLineTest, EveryWayToGiveAFlag) {
  auto line = Read({"first", "--http_port=1", "-name-of-it", "--x", "--nocaching", "--cache_bytes", "4GiB",
                    "second", "--http_port", "2", "--", "--third"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->arguments, ElementsAre("first", "second", "--third"));
  EXPECT_EQ(absl::GetFlag(FLAGS_http_port), 2);  // the last one counts
  EXPECT_EQ(absl::GetFlag(FLAGS_name_of_it), "--x");
  EXPECT_FALSE(absl::GetFlag(FLAGS_caching));
  EXPECT_EQ(absl::GetFlag(FLAGS_cache_bytes).bytes, int64_t{4} << 30);
  EXPECT_TRUE(IsGiven("http_port"));
  ASSERT_TRUE(Read({"--caching", "--http_port=8000"}).ok());
  EXPECT_TRUE(absl::GetFlag(FLAGS_caching));
  EXPECT_FALSE(IsGiven("http_port"));
  ASSERT_TRUE(Read({"--caching=false"}).ok());
  EXPECT_FALSE(absl::GetFlag(FLAGS_caching));
  EXPECT_EQ(FlagValues(program_)["cache_bytes"], "4GiB");
}

TEST_F(CommandLineTest, HelpIsByTopicAndSaysNothingOfFiles) {
  for (const char* word : {"--help", "-h", "-help", "--helpfull"}) {
    auto line = Read({word, "--unknown"});
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_THAT(line->text,
                HasSubstr("Where\n  --http_port=8000\n      where it listens\n\nWhat\n  --caching=true\n"));
    EXPECT_THAT(line->text, HasSubstr("--cache_bytes=1MiB\n"));
    EXPECT_THAT(line->text, Not(HasSubstr(".cc")));
  }
  EXPECT_EQ(Read({"--version"})->text, absl::StrCat("program ", kVersion, "\n"));
}

TEST_F(CommandLineTest, TheEnvironmentStandsBehindTheCommandLine) {
  setenv("TEST_PROGRAM_HTTP_PORT", "7", 1);
  ASSERT_TRUE(Read({}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_http_port), 7);
  ASSERT_TRUE(Read({"--http_port=8"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_http_port), 8);
  // As Kubernetes sets it for a service "test-program-http".
  setenv("TEST_PROGRAM_HTTP_PORT", "tcp://10.0.0.1:80", 1);
  EXPECT_EQ(ErrorOf({}), "TEST_PROGRAM_HTTP_PORT: 'tcp://10.0.0.1:80' is no value of it");
  unsetenv("TEST_PROGRAM_HTTP_PORT");
}

TEST_F(CommandLineTest, FilesOfFlags) {
  const std::string path = File("flags", "# a comment\n\n--http_port=5\n --name_of_it=a b \n");
  ASSERT_TRUE(Read({"--flagfile", path}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_http_port), 5);
  EXPECT_EQ(absl::GetFlag(FLAGS_name_of_it), "a b");
  EXPECT_EQ(ErrorOf({"--flagfile=/nope"}), "--flagfile: /nope: No such file or directory");
  const std::string self = absl::StrCat(testing::TempDir(), "/self");
  File("self", absl::StrCat("--flagfile=", self, "\n"));
  EXPECT_THAT(ErrorOf({"--flagfile", self}), HasSubstr("too deep"));
}

TEST_F(CommandLineTest, ErrorsNameTheFlagAndTheNearest) {
  EXPECT_EQ(ErrorOf({"--htp_port=1"}), "--htp_port: no such flag; the nearest is --http_port");
  EXPECT_EQ(ErrorOf({"--cache-byte", "1"}), "--cache_byte: no such flag; the nearest is --cache_bytes");
  EXPECT_EQ(ErrorOf({"--nonsense"}), "--nonsense: no such flag; --help lists them");
  EXPECT_EQ(ErrorOf({"--http_port=many"}), "--http_port: 'many' is no value of it");
  EXPECT_EQ(ErrorOf({"--http_port=99999999999"}), "--http_port: '99999999999' is no value of it");
  EXPECT_EQ(ErrorOf({"--http_port"}), "--http_port: a value is missing");
  EXPECT_EQ(ErrorOf({"--caching=perhaps"}), "--caching: 'perhaps' is no value of it");
  EXPECT_EQ(ErrorOf({"--nohttp_port"}), "--nohttp_port: no such flag; the nearest is --http_port");
  EXPECT_EQ(ErrorOf({"--cache_bytes=4 Bananas"}),
            "--cache_bytes: '4 Bananas' is not a size such as 65536, 512MiB or 4GiB");
}

}  // namespace
}  // namespace sessa
