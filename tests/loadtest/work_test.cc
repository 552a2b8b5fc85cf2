// What the load tester sends, and when: arrivals, lengths, mixes, traces, conversations. Statistics are
// checked by seed, so they are the same in every run of this test.
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadtest/arrivals.h"
#include "loadtest/lengths.h"
#include "loadtest/mixes.h"
#include "loadtest/trace.h"
#include "loadtest/workload.h"

namespace sessa::loadtest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Process = ArrivalOptions::Process;

std::vector<double> Times(const ArrivalOptions& options) {
  RateArrivals arrivals(options);
  std::vector<double> times;
  for (auto at = arrivals.Next(); at.has_value(); at = arrivals.Next()) times.push_back(*at);
  return times;
}

struct Moments {
  double mean = 0, variation = 0;  // the coefficient of variation
};
Moments GapMoments(const std::vector<double>& times) {
  std::vector<double> gaps(times.size());
  std::adjacent_difference(times.begin(), times.end(), gaps.begin());
  const double mean = std::accumulate(gaps.begin(), gaps.end(), 0.0) / static_cast<double>(gaps.size());
  double squares = 0;
  for (const double gap : gaps) squares += (gap - mean) * (gap - mean);
  return {mean, std::sqrt(squares / static_cast<double>(gaps.size())) / mean};
}

TEST(ArrivalsTest, ConstantRateBeginsAtOnce) {
  EXPECT_THAT(Times({Process::kConstant, 1, 4, 4, 1.0, 0}), ElementsAre(0, 0.25, 0.5, 0.75));
}

TEST(ArrivalsTest, PoissonHasItsMeanAndVariation) {
  const Moments gaps = GapMoments(Times({Process::kPoisson, 1, 50, 50, 1000, 7}));
  EXPECT_NEAR(gaps.mean, 1.0 / 50, 0.02 / 50);  // 50 000 gaps: a standard error of 0.4 %
  EXPECT_NEAR(gaps.variation, 1, 0.02);
}

TEST(ArrivalsTest, GammaHasItsMeanAndVariation) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const Moments gaps = GapMoments(Times({Process::kGamma, burstiness, 50, 50, 1000, 7}));
    EXPECT_NEAR(gaps.mean, 1.0 / 50, 0.04 / 50) << burstiness;
    EXPECT_NEAR(gaps.variation, 1 / std::sqrt(burstiness), 0.04 / std::sqrt(burstiness)) << burstiness;
  }
}

TEST(ArrivalsTest, ARampFollowsItsIntegral) {
  // From 10/s to 30/s in 20 s: 10 t + t²/2.
  const std::vector<double> times = Times({Process::kConstant, 1, 10, 30, 20, 0});
  ASSERT_EQ(times.size(), 400);
  for (size_t n = 0; n < times.size(); ++n)
    EXPECT_NEAR(10 * times[n] + times[n] * times[n] / 2, static_cast<double>(n), 1e-9);
  // Down to nothing: 10 t - t²/4 never reaches 100 before 20 s.
  EXPECT_EQ(Times({Process::kConstant, 1, 10, 0, 20, 0}).size(), 100);
  // The random process too has as many as the integral says.
  EXPECT_NEAR(static_cast<double>(Times({Process::kPoisson, 1, 100, 300, 50, 3}).size()), 10000, 300);
}

TEST(ArrivalsTest, TheSeedAloneDecides) {
  const ArrivalOptions options = {Process::kGamma, 0.5, 5, 5, 100, 11};
  EXPECT_EQ(Times(options), Times(options));
  ArrivalOptions other = options;
  other.seed = 12;
  EXPECT_NE(Times(options), Times(other));
}

// ---- lengths ----

TEST(LengthsTest, Fixed) {
  const auto lengths = Lengths::Parse(" 8K ");
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  Random random(1);
  EXPECT_EQ(lengths->Draw(&random), 8192);
}

TEST(LengthsTest, UniformReachesBothEnds) {
  const auto lengths = Lengths::Parse("3-6");
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  Random random(1);
  std::map<int, int> counts;
  for (int i = 0; i < 4000; ++i) ++counts[lengths->Draw(&random)];
  ASSERT_EQ(counts.size(), 4);
  for (const auto& [length, count] : counts) EXPECT_NEAR(count, 1000, 120) << length;
}

TEST(LengthsTest, LogNormalHasItsMedianAndBounds) {
  const auto lengths = Lengths::Parse("500~0.8[100-2000]");
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  Random random(1);
  std::vector<double> logs;
  int below = 0;
  for (int i = 0; i < 20000; ++i) {
    const int length = lengths->Draw(&random);
    ASSERT_GE(length, 100);
    ASSERT_LE(length, 2000);
    below += length < 500;
    // 1 sigma above the median: 1113 tokens, above which are 15.9 %.
    logs.push_back(length > 1113);
  }
  EXPECT_NEAR(below, 10000, 300);
  EXPECT_NEAR(std::accumulate(logs.begin(), logs.end(), 0.0) / 20000, 0.159, 0.01);
}

TEST(LengthsTest, BadTextIsNamed) {
  for (const char* text : {"", "x", "0", "-5", "5-", "9-3", "512~", "512~0", "512~1[9", "512~1[600-700]",
                           "5.5", "99999999K", "1~nan", "64M"}) {
    const auto lengths = Lengths::Parse(text);
    EXPECT_EQ(lengths.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(lengths.status().message()), HasSubstr(absl::StrCat("'", text, "'")));
  }
}

TEST(LengthsTest, PairsWithWeights) {
  const auto pairs = ParseLengthPairs("512,128:3; 8K-16K,64~0.5 ");
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  ASSERT_EQ(pairs->size(), 2);
  EXPECT_EQ((*pairs)[0].text, "512,128");
  EXPECT_EQ((*pairs)[0].weight, 3);
  EXPECT_EQ((*pairs)[1].weight, 1);
  EXPECT_EQ((*pairs)[1].input.high(), 16384);
  for (const char* text : {"512", "512,128,3", "512,128:0", "512,128:x", "512,x", "512,128;", ""}) {
    EXPECT_EQ(ParseLengthPairs(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(std::string(ParseLengthPairs("4,4;512,x").status().message()),
              HasSubstr("'512,x': output 'x'"));
}

// ---- mixes ----

TEST(MixesTest, AllFitWhatIsAskedFor) {
  for (const Mix& mix : Mixes()) {
    for (const int max_context : {512, 4096, 65536}) {
      const auto parts = FitMix(mix.parts, max_context);
      ASSERT_TRUE(parts.ok()) << mix.name << ": " << parts.status();
      int64_t longest = 0;
      for (const WorkloadPart& part : *parts) longest = std::max(longest, part.MaxContext());
      EXPECT_LE(longest, max_context) << mix.name;
      if (max_context == 4096) {
        EXPECT_GE(longest, max_context * 0.9) << mix.name;
      }
    }
    EXPECT_FALSE(FitMix(mix.parts, 1).ok()) << mix.name;
  }
  EXPECT_THAT(std::string(FindMix("chats").status().message()), HasSubstr("'chats'"));
}

// ---- workload ----

WorkloadOptions OnePart(WorkloadPart part) {
  WorkloadOptions options;
  options.parts = {std::move(part)};
  options.vocab_size = 1000;
  options.tenants = {{"", "", 1}};
  options.seed = 5;
  return options;
}

std::vector<int32_t> Ids(const Call& call) {
  std::vector<int32_t> ids;
  for (const Segment& segment : call.prompt) ids.insert(ids.end(), segment.ids.begin(), segment.ids.end());
  return ids;
}

TEST(WorkloadTest, PromptsHaveTheirLengthsAndOwnTokens) {
  WorkloadPart part;
  part.input = Lengths::Uniform(10, 40);
  part.output = Lengths::Fixed(7);
  Workload work(OnePart(part)), again(OnePart(part));
  std::set<std::vector<int32_t>> prompts;
  for (int i = 0; i < 100; ++i) {
    const auto call = work.Next();
    EXPECT_EQ(call->record.input_tokens, Ids(*call).size());
    EXPECT_EQ(call->record.output_tokens, 7);
    for (const int32_t id : Ids(*call)) ASSERT_TRUE(id >= 1 && id < 1000) << id;
    EXPECT_EQ(Ids(*call), Ids(*again.Next()));
    prompts.insert(Ids(*call));
  }
  EXPECT_EQ(prompts.size(), 100);
}

TEST(WorkloadTest, ALaterRunHasTheSameLengthsAndOtherTokens) {
  WorkloadPart part;
  part.input = Lengths::Uniform(40, 80);
  part.output = Lengths::Uniform(1, 9);
  part.num_prefixes = 2;
  part.prefix_tokens = 16;
  WorkloadOptions options = OnePart(part);
  Workload first(options);
  ++options.run;
  Workload second(options);
  for (int i = 0; i < 50; ++i) {
    const auto a = first.Next(), b = second.Next();
    EXPECT_EQ(a->record.output_tokens, b->record.output_tokens);
    ASSERT_EQ(a->record.input_tokens, b->record.input_tokens);
    ASSERT_EQ(a->prompt.size(), b->prompt.size());
    for (size_t s = 0; s < a->prompt.size(); ++s) EXPECT_NE(a->prompt[s].ids, b->prompt[s].ids);
  }
}

TEST(WorkloadTest, PrefixesAreSharedAsOftenAsAsked) {
  WorkloadPart part;
  part.input = Lengths::Fixed(50);
  part.num_prefixes = 3;
  part.prefix_tokens = 20;
  part.prefix_share = 0.75;
  Workload work(OnePart(part));
  std::map<std::vector<int32_t>, int> starts;
  for (int i = 0; i < 2000; ++i) {
    std::vector<int32_t> ids = Ids(*work.Next());
    ASSERT_EQ(ids.size(), 50);
    ids.resize(20);
    ++starts[ids];
  }
  std::vector<int> shared;
  for (const auto& [start, count] : starts) {
    if (count > 1) shared.push_back(count);
  }
  ASSERT_EQ(shared.size(), 3);
  for (const int count : shared) EXPECT_NEAR(count, 500, 80);
}

TEST(WorkloadTest, ConversationsGrow) {
  WorkloadPart part;
  part.input = Lengths::Fixed(10);
  part.output = Lengths::Fixed(4);
  part.turns = Lengths::Fixed(3);
  part.turn_input = Lengths::Fixed(5);
  Workload work(OnePart(part));
  auto call = work.Next();
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_EQ(call->record.turn, turn);
    EXPECT_EQ(call->record.input_tokens, 10 + turn * (4 + 5));
    EXPECT_EQ(call->keep_answer, turn < 2);
    std::vector<int32_t> start = Ids(*call);
    call->answer.ids = {1, 2, 3, 4};
    auto next = work.NextTurn(*call);
    if (turn == 2) {
      EXPECT_EQ(next, nullptr);
      break;
    }
    start.insert(start.end(), {1, 2, 3, 4});
    std::vector<int32_t> ids = Ids(*next);
    ids.resize(start.size());
    EXPECT_EQ(ids, start);
    call = std::move(next);
  }
  EXPECT_LE(call->record.input_tokens + call->record.output_tokens, part.MaxContext());
  // A turn that failed ends its conversation.
  auto failed = work.Next();
  failed->record.outcome = Outcome::kRateLimited;
  EXPECT_EQ(work.NextTurn(*failed), nullptr);
}

TEST(WorkloadTest, TenantsAndCancellingByTheirShares) {
  WorkloadPart part;
  part.output = Lengths::Fixed(10);
  WorkloadOptions options = OnePart(part);
  options.tenants = {{"a", "ka", 3}, {"b", "kb", 1}};
  options.cancel_share = 0.2;
  Workload work(options);
  std::map<std::string, int> tenants;
  std::map<int, int> cancels;
  for (int i = 0; i < 2000; ++i) {
    const auto call = work.Next();
    ++tenants[call->record.tenant];
    ++cancels[call->cancel_after];
  }
  EXPECT_NEAR(tenants["a"], 1500, 80);
  EXPECT_NEAR(cancels[0], 1600, 80);
  EXPECT_EQ(cancels.size(), 10);  // never, or after 1 to 9 of its tokens
  EXPECT_EQ(cancels.rbegin()->first, 9);
}

// ---- traces ----

constexpr char kTrace[] =
    R"({"timestamp": 1000, "input_length": 1030, "output_length": 5, "hash_ids": [7, 8, 9]}

{"timestamp": 3000, "input_length": 520, "output_length": 6, "hash_ids": [7, 9]}
{"timestamp": 2000, "input_length": 512, "output_length": 7, "hash_ids": [10]}
)";

TEST(TraceTest, EqualIdsAreEqualTokens) {
  std::istringstream lines(kTrace);
  auto trace = ReadTrace(&lines, {.time_scale = 2});
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 3);
  EXPECT_EQ((*trace)[0].at, 0);
  EXPECT_EQ((*trace)[1].at, 2);  // by time, twice as slow
  EXPECT_EQ((*trace)[1].output_length, 7);
  EXPECT_EQ((*trace)[2].at, 4);
  WorkloadOptions options;
  options.trace = *trace;
  options.vocab_size = 30000;
  options.tenants = {{"", "", 1}};
  Workload work(options);
  const std::vector<int32_t> first = Ids(*work.Next()), second = Ids(*work.Next()), third = Ids(*work.Next());
  EXPECT_EQ(work.Next(), nullptr);
  ASSERT_EQ(first.size(), 1030);
  ASSERT_EQ(third.size(), 520);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 512, third.begin()));       // block 7
  EXPECT_TRUE(std::equal(first.begin() + 1024, first.end(), third.begin() + 512));  // block 9, its first 6
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + 512, second.begin()));
}

TEST(TraceTest, ScaledDownItStillShares) {
  std::istringstream lines(kTrace);
  auto trace = ReadTrace(&lines, {});
  ASSERT_TRUE(trace.ok());
  WorkloadOptions options;
  options.trace = *trace;
  options.vocab_size = 30000;
  options.tenants = {{"", "", 1}};
  ScaleTrace(1.0 / 16, &options.trace, &options.trace_block_tokens);
  EXPECT_EQ(options.trace_block_tokens, 32);
  Workload work(options);
  const std::vector<int32_t> first = Ids(*work.Next());
  work.Next();
  const std::vector<int32_t> third = Ids(*work.Next());
  ASSERT_EQ(first.size(), 64);
  ASSERT_EQ(third.size(), 32);
  EXPECT_TRUE(std::equal(third.begin(), third.end(), first.begin()));
}

TEST(TraceTest, OffsetAndLimit) {
  std::istringstream lines(kTrace);
  auto trace = ReadTrace(&lines, {.offset_seconds = 1.5, .max_requests = 1});
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 1);
  EXPECT_EQ(trace->front().input_length, 512);
  EXPECT_EQ(trace->front().at, 0);
  std::istringstream again(kTrace);
  EXPECT_THAT(std::string(ReadTrace(&again, {.offset_seconds = 9}).status().message()),
              HasSubstr("no request"));
}

TEST(TraceTest, BadLinesAreNamed) {
  const char* const good = R"({"timestamp":0,"input_length":1,"output_length":1,"hash_ids":[1]})";
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"{", "not a JSON object"},
      {"[1]", "not a JSON object"},
      {R"({"input_length":1,"output_length":1,"hash_ids":[1]})", "\"timestamp\""},
      {R"({"timestamp":-1,"input_length":1,"output_length":1,"hash_ids":[1]})", "\"timestamp\""},
      {R"({"timestamp":0,"input_length":0,"output_length":1,"hash_ids":[]})", "\"input_length\""},
      {R"({"timestamp":0,"input_length":1,"output_length":1.5,"hash_ids":[1]})", "\"output_length\""},
      {R"({"timestamp":0,"input_length":1,"output_length":1})", "\"hash_ids\""},
      {R"({"timestamp":0,"input_length":1,"output_length":1,"hash_ids":["a"]})", "\"hash_ids\""},
      {R"({"timestamp":0,"input_length":513,"output_length":1,"hash_ids":[1]})", "2 blocks"},
  };
  for (const auto& [line, why] : cases) {
    std::istringstream lines(absl::StrCat(good, "\n\n", line, "\n", good));
    const auto trace = ReadTrace(&lines, {});
    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(trace.status().message()), testing::AllOf(HasSubstr("line 3:"), HasSubstr(why)));
  }
}

}  // namespace
}  // namespace sessa::loadtest
