// REST: what OpenAI's API has not and vLLM's has: log-probabilities of prompts, seeds of any sign, the usage
// in every chunk of a stream.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

TEST_F(RestTest, PromptLogprobsAreAnObjectForEachToken) {
  Load();
  const HttpReply reply =
      Complete(R"({"prompt": [[5, 6, 7], [8]], "n": 2, "max_tokens": 1, "prompt_logprobs": 2})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const boost::json::value json = reply.Json();
  for (int choice : {0, 1}) {
    const boost::json::value scores = json.at("choices").at(choice).at("prompt_logprobs");
    ASSERT_EQ(scores.as_array().size(), 3u);
    EXPECT_TRUE(scores.at(0).is_null());
    // The script's best is the token itself, then its neighbour.
    const boost::json::object& second = scores.at(1).as_object();
    ASSERT_EQ(second.size(), 2u);
    EXPECT_EQ(second.at("6").at("logprob").to_number<double>(), -1);
    EXPECT_EQ(second.at("6").at("rank"), 1);
    EXPECT_EQ(second.at("6").at("decoded_token"), std::string(tokenizer_->TokenBytes(6)).c_str());
    EXPECT_EQ(second.at("7").at("logprob").to_number<double>(), -2);
    EXPECT_EQ(second.at("7").at("rank"), 2);
    EXPECT_TRUE(json.at("choices").at(choice).at("logprobs").is_null());
  }
  EXPECT_EQ(boost::json::serialize(json.at("choices").at(3).at("prompt_logprobs")), "[null]");
  EXPECT_EQ(engine_->last().sampling.num_logprobs, 2);

  // Other counts for what is generated.
  const HttpReply few = Complete(
      R"({"prompt": [5, 6], "max_tokens": 1, "prompt_logprobs": 0, "logprobs": 3, "return_token_ids": true})");
  const boost::json::value choice = few.Json().at("choices").at(0);
  EXPECT_EQ(choice.at("prompt_logprobs").at(1).as_object().size(), 1u);
  EXPECT_EQ(choice.at("logprobs").at("top_logprobs").at(0).as_object().size(), 3u);
  const HttpReply none = Complete(R"({"prompt": [5, 6], "max_tokens": 0, "prompt_logprobs": 0})");
  EXPECT_TRUE(none.Json().at("choices").at(0).at("prompt_logprobs").at(1).at("6").at("rank") == 7);
  EXPECT_EQ(none.Json().at("usage").at("completion_tokens"), 0);

  const HttpReply chat = Post(
      "/v1/chat/completions",
      R"({"messages": [{"role": "user", "content": "x"}], "n": 2, "max_tokens": 1, "prompt_logprobs": 1})");
  ASSERT_EQ(chat.status, 200) << chat.body;
  EXPECT_EQ(chat.Json().at("prompt_logprobs").as_array().size(),
            chat.Json().at("usage").at("prompt_tokens").as_int64());
  EXPECT_FALSE(
      Complete(R"({"prompt": "x"})").Json().at("choices").at(0).as_object().contains("prompt_logprobs"));

  // A prompt of many pieces, with an echo behind them.
  std::string ids;
  for (int i = 0; i < 60; ++i) absl::StrAppend(&ids, i > 0 ? "," : "", i);
  const HttpReply both = Complete(absl::StrCat(
      R"({"prompt": [)", ids, R"(], "max_tokens": 1, "prompt_logprobs": 1, "logprobs": 1, "echo": true})"));
  ASSERT_EQ(both.status, 200) << both.body;
  const boost::json::value echoed = both.Json().at("choices").at(0);
  EXPECT_EQ(echoed.at("prompt_logprobs").as_array().size(), 60u);
  EXPECT_EQ(echoed.at("logprobs").at("tokens").as_array().size(), 61u);
  EXPECT_EQ(echoed.at("prompt_logprobs").at(59).at("59").at("logprob"),
            echoed.at("logprobs").at("token_logprobs").at(59));
}

TEST_F(RestTest, SeedsOfAnySign) {
  Load();
  const auto seed = [this](const char* value) {
    const HttpReply reply =
        Complete(absl::StrCat(R"({"prompt": "a", "max_tokens": 2, "seed": )", value, "}"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return engine_->last().sampling.seed;
  };
  EXPECT_EQ(seed("-2"), UINT64_MAX - 1);
  EXPECT_EQ(seed("-9223372036854775808"), uint64_t{1} << 63);
  EXPECT_EQ(seed("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(seed("0"), 0u);
  // At random: below 2^53, so that it can be told, and not twice the same.
  const uint64_t first = seed("-1"), second = seed("-1");
  EXPECT_LT(std::max(first, second), uint64_t{1} << 53);
  EXPECT_NE(first, second);
  EXPECT_EQ(Post("/v2/models/scripted/generate", R"({"text_input": "a", "parameters": {"seed": -1}})").status,
            200);
}

TEST_F(RestTest, UsageInEveryChunkIsOfItsChoice) {
  Load();
  const auto events = [this](const char* options) {
    return Complete(absl::StrCat(R"({"prompt": [5, 6], "n": 2, "max_tokens": 3, "return_token_ids": true, )",
                                 R"("stream": true, "stream_options": )", options, "}"))
        .Events();
  };
  const std::vector<std::string> with = events(R"({"include_usage": true, "continuous_usage_stats": true})");
  ASSERT_EQ(with.size(), 2u * 3 + 2);
  std::vector<int64_t> counts(2);
  for (size_t i = 0; i + 2 < with.size(); ++i) {
    const boost::json::value chunk = boost::json::parse(with[i]);
    EXPECT_EQ(chunk.at("usage").at("prompt_tokens"), 2);
    EXPECT_EQ(chunk.at("usage").at("completion_tokens"),
              ++counts[chunk.at("choices").at(0).at("index").as_int64()]);
  }
  EXPECT_EQ(boost::json::parse(with[with.size() - 2]).at("usage").at("completion_tokens"), 6);
  // Without include_usage it means nothing.
  EXPECT_FALSE(
      boost::json::parse(events(R"({"continuous_usage_stats": true})")[0]).as_object().contains("usage"));
}

}  // namespace
}  // namespace sessa
