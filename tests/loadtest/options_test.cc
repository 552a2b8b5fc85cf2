// The command line: what is wrong is named before anything is sent, and --help has every flag.
#include "loadtest/options.h"

#include <fstream>
#include <map>

#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/flags.h"

namespace sessa::loadtest {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<std::string> arguments, std::string* text = nullptr) {
  absl::FlagSaver saver;
  arguments.insert(arguments.begin(), "sessa-loadtest");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  std::string ignored;
  return ParseOptions(static_cast<int>(argv.size()), argv.data(), text == nullptr ? &ignored : text);
}

std::string TempFile(const std::string& name, const std::string& content) {
  const std::string path = absl::StrCat(testing::TempDir(), "/", name);
  std::ofstream(path) << content;
  return path;
}

TEST(OptionsTest, HelpHasEveryFlagOnce) {
  std::map<std::string, int> listed;
  for (const FlagGroup& group : LoadTester().groups) {
    for (const char* flag : group.flags) ++listed[flag];
  }
  int own = 0;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!absl::EndsWith(flag->Filename(), "loadtest/flags.cc")) continue;
    ++own;
    EXPECT_EQ(listed[std::string(name)], 1) << name;
  }
  EXPECT_EQ(own, listed.size());
  std::string text;
  ASSERT_TRUE(Parse({"--help"}, &text).ok());
  EXPECT_THAT(text, HasSubstr("--cancel_share=0\n"));
  ASSERT_TRUE(Parse({"--mix", "list"}, &text).ok());
  EXPECT_THAT(text, HasSubstr("documents"));
}

TEST(OptionsTest, TheUsualOnes) {
  auto options = Parse({"--url=grpc://h:1", "--rate=1,2.5", "--ramp_to=4", "--arrivals=gamma",
                        "--burstiness=0.5", "--lengths=8,4:2;16,2", "--slo=ttft:1s", "--api_key=secret"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->grpc);
  EXPECT_EQ(options->grpc_address, "h:1");
  EXPECT_FALSE(options->has_metrics);
  EXPECT_EQ(options->rates, (std::vector<double>{1, 2.5}));
  EXPECT_EQ(options->arrivals.end_rate, 4);
  EXPECT_EQ(options->work.parts.size(), 2);
  EXPECT_EQ(options->request.tenants[0].key, "secret");
  for (const auto& [name, value] : options->flags) EXPECT_NE(value, "secret") << name;
  options = Parse({"--users=3", "--mix=chat", "--metrics_url=http://m:9/metrics"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->load.num_users, 3);
  EXPECT_EQ(options->metrics.authority, "m:9");
  EXPECT_EQ(options->metrics.path, "");
  options = Parse({"--rate=search:0.5"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->search_rates);
  EXPECT_EQ(options->rates[0], 0.5);
}

TEST(OptionsTest, Tenants) {
  const std::string path = TempFile("tenants", "# keys\nk1 alice 3\n\nk2 bob\n");
  const auto options = Parse({"--rate=1", "--tenants_file", path});
  ASSERT_TRUE(options.ok()) << options.status();
  ASSERT_EQ(options->request.tenants.size(), 2);
  EXPECT_EQ(options->request.tenants[0].share, 3);
  EXPECT_EQ(options->request.tenants[1].name, "bob");
  for (const char* bad : {"k1\n", "k1 a x\n", "k1 a 0\n", "k1 a 1 2\n", ""}) {
    const auto wrong = Parse({"--rate=1", "--tenants_file", TempFile("bad", bad)});
    EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("--tenants_file")) << bad;
  }
}

TEST(OptionsTest, TraceIsReadAndItsErrorNamesTheLine) {
  const std::string line = R"({"timestamp":0,"input_length":1,"output_length":1,"hash_ids":[1]})";
  const auto options = Parse({"--trace", TempFile("trace", line)});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->work.trace.size(), 1);
  EXPECT_TRUE(std::isinf(options->load.duration));
  const auto bad = Parse({"--trace", TempFile("bad_trace", line + "\n{}\n")});
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("line 2"));
}

TEST(OptionsTest, WhatIsWrongIsNamed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "--rate"},
      {{"--rate=1", "--users=1"}, "--rate"},
      {{"--rate=0"}, "--rate"},
      {{"--rate=1,x"}, "'x'"},
      {{"--rate=search:1,2"}, "--rate"},
      {{"--rate=search", "--ramp_to=3"}, "--ramp_to"},
      {{"--users=2", "--ramp_to=3"}, "--ramp_to"},
      {{"--users=-1"}, "--users"},
      {{"--rate=1", "--arrivals=uniform"}, "'uniform'"},
      {{"--rate=1", "--burstiness=2"}, "--burstiness"},
      {{"--rate=1", "--duration_seconds=0"}, "--duration_seconds"},
      {{"--rate=1", "--duration_seconds=nan"}, "--duration_seconds"},
      {{"--rate=1", "--duration_seconds=5", "--warmup_seconds=3", "--cooldown_seconds=2"},
       "--warmup_seconds"},
      {{"--rate=1", "--url=https://h"}, "--url"},
      {{"--rate=1", "--url=grpc://h/x"}, "--url"},
      {{"--rate=1", "--url=grpc://h", "--prompt_as=text"}, "--prompt_as"},
      {{"--rate=1", "--url=grpc://h", "--extra_body={\"a\":1}"}, "--extra_body"},
      {{"--rate=1", "--extra_body={}"}, "--extra_body"},
      {{"--rate=1", "--metrics_url=ftp://h"}, "--metrics_url"},
      {{"--rate=1", "--api=responses"}, "--api"},
      {{"--rate=1", "--prompt_as=words"}, "--prompt_as"},
      {{"--rate=1", "--lengths=512"}, "--lengths"},
      {{"--rate=1", "--mix=chats"}, "--mix"},
      {{"--rate=1", "--mix=chat", "--lengths=1,1"}, "--lengths"},
      {{"--rate=1", "--turns=0"}, "--turns"},
      {{"--rate=1", "--prefix_tokens=5-9"}, "--prefix_tokens"},
      {{"--rate=1", "--prefix_share=1.1"}, "--prefix_share"},
      {{"--rate=1", "--cancel_share=-0.1"}, "--cancel_share"},
      {{"--rate=1", "--vocab_size=1"}, "--vocab_size"},
      {{"--rate=1", "--trace_time_scale=2"}, "--trace_time_scale"},
      {{"--trace=/nowhere"}, "--trace"},
      {{"--rate=1", "--slo=ttft"}, "--slo"},
      {{"--rate=1", "more"}, "'more'"},
      {{"--rate=1", "--tenants_file=/nowhere"}, "--tenants_file"},
      {{"--rate=1", "--tenants_file=/nowhere", "--api_key=k"}, "--tenants_file"},
  };
  for (const auto& [arguments, name] : cases) {
    const auto options = Parse(arguments);
    EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(name));
  }
}

}  // namespace
}  // namespace sessa::loadtest
