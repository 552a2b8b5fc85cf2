// REST: the description at /openapi.json against what the parsers of bodies ask for, both ways; and the small
// endpoints for tools and balancers.
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "server/rest/request_json.h"
#include "server/rest/router.h"
#include "server/rest/unserved_fields.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

class RestOpenApiTest : public RestTest {
 protected:
  void SetUp() override {
    Start({});
    Load();
    description_ = Call("GET", "/openapi.json").Json();
  }
  // Names of a schema's properties, with those of the schemas that it is made of.
  std::set<std::string> Properties(const boost::json::value& schema) const {
    std::set<std::string> names;
    const boost::json::object& object = schema.as_object();
    if (const auto* ref = object.if_contains("$ref")) {
      const std::string name(ref->as_string());
      return Properties(description_.at("components").at("schemas").at(name.substr(name.rfind('/') + 1)));
    }
    if (const auto* all = object.if_contains("allOf")) {
      for (const auto& part : all->as_array()) names.merge(Properties(part));
    }
    if (const auto* properties = object.if_contains("properties")) {
      for (const auto& property : properties->as_object()) names.insert(std::string(property.key()));
    }
    return names;
  }
  std::set<std::string> PropertiesOf(const std::string& name) const {
    return Properties(description_.at("components").at("schemas").at(name));
  }

  boost::json::value description_;
};

template <typename Parsed>
std::set<std::string> Known(const absl::StatusOr<Parsed>& parsed) {
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  std::set<std::string> known = parsed->known;
  for (const std::string& name : UnservedFields()) known.erase(name);
  return known;
}

TEST_F(RestOpenApiTest, DescribesTheFieldsThatAreRead) {
  const Limits limits;
  EXPECT_EQ(Known(ParseCompletion(R"({"prompt": "x"})", limits)), PropertiesOf("CompletionRequest"));
  EXPECT_EQ(Known(ParseChatCompletion(R"({"messages": []})", limits)), PropertiesOf("ChatRequest"));
  std::set<std::string> responses = Known(ParseResponses(R"({"input": "x"})", limits));
  // Known, so that they are refused by name.
  for (const char* name : {"previous_response_id", "conversation", "prompt", "prompt_logprobs"})
    EXPECT_EQ(responses.erase(name), 1u);
  EXPECT_EQ(responses, PropertiesOf("ResponseRequest"));
  EXPECT_EQ(Known(ParseTokenize(R"({"messages": []})", limits)), PropertiesOf("TokenizeRequest"));
  EXPECT_EQ(Known(ParseDetokenize(R"({"tokens": []})", limits)), PropertiesOf("DetokenizeRequest"));
  std::set<std::string> similarity = Known(ParseSimilarity(R"({"input": ["x", "y"]})", limits));
  for (const std::string& name : PropertiesOf("SimilarityRequest"))
    EXPECT_EQ(similarity.count(name), 1u) << name;
  std::set<std::string> kserve =
      Known(ParseKserveGenerate(R"({"text_input": "x", "parameters": {}})", limits, false));
  EXPECT_EQ(kserve.erase("prompt_logprobs"), 1u);
  EXPECT_EQ(kserve, Properties(description_.at("components")
                                   .at("schemas")
                                   .at("KserveGenerateRequest")
                                   .at("properties")
                                   .at("parameters")));
}

TEST_F(RestOpenApiTest, DescribesPathsThatAreThere) {
  std::set<std::string> described;
  for (const auto& path : description_.at("paths").as_object()) {
    std::string name(path.key());
    described.insert(name);
    if (const size_t at = name.find("{model}"); at != std::string::npos) name.replace(at, 7, "scripted");
    const std::optional<Route> route = FindRoute(name);
    ASSERT_TRUE(route.has_value()) << name;
    EXPECT_EQ(path.value().as_object().contains("post"), route->is_post) << name;
    const auto& method = path.value().as_object().begin()->value().as_object();
    EXPECT_EQ(method.contains("security"), route->is_open) << name;
  }
  for (const std::string& path : KnownPaths())
    EXPECT_EQ(described.count(path == "/v2/" ? "/v2" : path), 1u) << path;
}

TEST_F(RestOpenApiTest, BoundsAreThoseThatAreKept) {
  // Each field of numbers at its bounds and beyond them, as the description states them.
  int num_bounds = 0;
  const auto& schemas = description_.at("components").at("schemas");
  for (const auto& field : schemas.at("Sampling").at("properties").as_object()) {
    const boost::json::object& schema = field.value().as_object();
    const std::string name(field.key());
    for (const char* bound : {"minimum", "maximum"}) {
      const boost::json::value* value = schema.if_contains(bound);
      if (value == nullptr || name == "max_tokens" || name == "timeout" || name == "truncate_prompt_tokens")
        continue;
      const double at = value->to_number<double>();
      const bool open = schema.at("description").as_string().find("Above 0") != boost::json::string::npos;
      const auto status = [&](double number) {
        return Complete(absl::StrCat(R"({"prompt": [1], ")", name, "\": ", number, "}")).status;
      };
      ++num_bounds;
      if (!(open && at == 0)) {
        EXPECT_EQ(status(at), 200) << name << " " << at;
      }
      EXPECT_EQ(status(at + (bound[1] == 'i' ? -1 : 1)), 400) << name << " " << at;
    }
  }
  EXPECT_GE(num_bounds, 17);
}

// sglang-router and vllm-router read these.
TEST_F(RestTest, WhatRoutersAskOfAWorker) {
  EXPECT_EQ(Call("GET", "/get_load").Json().at(0).at("num_tokens"), 0);
  EXPECT_EQ(Call("GET", "/server_info").status, 503);
  EXPECT_EQ(Call("GET", "/model_info").status, 503);
  Load();
  const boost::json::value server = Call("GET", "/server_info").Json();
  EXPECT_EQ(server, Call("GET", "/get_server_info").Json());
  EXPECT_EQ(server.at("served_model_name"), "scripted");
  EXPECT_EQ(server.at("max_running_requests"), Call("GET", "/v1/limits").Json().at("max_num_seqs"));
  EXPECT_EQ(server.at("context_length"), Call("GET", "/v1/models/scripted").Json().at("max_model_len"));
  const boost::json::value model = Call("GET", "/model_info").Json();
  EXPECT_EQ(model, Call("GET", "/get_model_info").Json());
  EXPECT_EQ(model.at("is_generation"), true);
  EXPECT_EQ(model.at("model_type"), "sessa");
  const boost::json::value load = Call("GET", "/get_load").Json();
  ASSERT_EQ(load.as_array().size(), 1u);  // ranks of data parallelism
  const boost::json::value ours = Call("GET", "/load").Json();
  EXPECT_EQ(load.at(0).at("num_reqs"), ours.at("server_load"));
  EXPECT_EQ(load.at(0).at("num_waiting_reqs"), ours.at("num_waiting"));
  EXPECT_NE(load.at(0).at("num_reqs"), 0);  // the scripted engine's own
}

TEST_F(RestTest, PingLoadAndTokenizerInfo) {
  EXPECT_EQ(Call("GET", "/ping").status, 503);
  EXPECT_EQ(Call("GET", "/load").Json().at("server_load"), 0);
  EXPECT_EQ(Call("GET", "/load").Json().at("ready"), false);
  EXPECT_EQ(Call("GET", "/tokenizer_info").status, 503);
  Load();
  EXPECT_EQ(Call("GET", "/ping").status, 200);
  EXPECT_EQ(Call("POST", "/ping", "whatever", {{"Content-Type", "text/plain"}}).status, 200);
  EXPECT_EQ(Call("DELETE", "/ping").Header("Allow"), "GET, HEAD, POST");
  EXPECT_EQ(Call("GET", "/load").Json().at("ready"), true);
  EXPECT_EQ(Call("GET", "/tokenizer_info").status, 200);
}

}  // namespace
}  // namespace sessa
