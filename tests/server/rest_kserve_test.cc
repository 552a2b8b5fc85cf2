// REST: KServe v2 with Triton's extensions. Versions, descriptions, inference of tensors as JSON and as
// bytes, and errors as its clients read them. Triton's own client goes through all of it in tests/e2e.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "server/rest/answer.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

class RestKserveTest : public RestTest {
 protected:
  void SetUp() override {
    Start({});
    Load();
  }
  HttpReply Infer(const std::string& body, const Headers& headers = {}) {
    return Post("/v2/models/scripted/infer", body, headers);
  }
  static std::string ErrorOf(const HttpReply& reply) {
    EXPECT_EQ(reply.Json().as_object().size(), 1u) << reply.body;
    return std::string(reply.Json().at("error").as_string());
  }
};

TEST_F(RestKserveTest, PathsWithAndWithoutVersion) {
  for (const char* version : {"", "/versions/1"}) {
    const std::string model = absl::StrCat("/v2/models/scripted", version);
    EXPECT_EQ(Call("GET", model).Json().at("name"), "scripted");
    EXPECT_EQ(Call("GET", model + "/ready").status, 200);
    EXPECT_EQ(Call("GET", model + "/config").Json().at("backend"), "sessa");
    EXPECT_EQ(Call("GET", model + "/stats").Json().at("model_stats").at(0).at("version"), "1");
    EXPECT_EQ(Post(model + "/generate", R"({"text_input": "x"})").status, 200);
    EXPECT_EQ(Post(model + "/generate_stream", R"({"text_input": "x"})").status, 200);
    EXPECT_EQ(Post(model + "/infer",
                   R"({"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1], "data": [5]}]})")
                  .status,
              200);
  }
  for (const char* path :
       {"/v2/models/scripted/versions/2", "/v2/models/scripted/versions/2/ready",
        "/v2/models/scripted/versions//ready", "/v2/models/scripted/versions/1/x", "/v2/models/other",
        "/v2/models/other/versions/1/ready", "/v2/nothing", "/v2/models/", "/v2/models/versions/1"}) {
    const HttpReply reply = Call("GET", path);
    EXPECT_EQ(reply.status, 404) << path;
    ErrorOf(reply);
  }
  EXPECT_EQ(Post("/v2/models/scripted/versions/2/generate", R"({"text_input": "x"})").status, 404);
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(RestKserveTest, SaysWhatThereIs) {
  EXPECT_EQ(Call("GET", "/v2").Json().at("name"), "sessa");
  EXPECT_EQ(Call("GET", "/v2/").Json().at("version"), Call("GET", "/version").Json().at("version"));
  const boost::json::value model = Call("GET", "/v2/models/scripted").Json();
  EXPECT_EQ(model.at("versions").at(0), "1");
  EXPECT_EQ(model.at("inputs").at(0).at("datatype"), "BYTES");
  EXPECT_EQ(model.at("outputs").as_array().size(), 3u);
  const boost::json::value index = Post("/v2/repository/index", "").Json();
  EXPECT_EQ(index.at(0).at("name"), "scripted");
  EXPECT_EQ(index.at(0).at("state"), "READY");
  ErrorOf(Post("/v2/repository/models/scripted/load", "{}"));
  EXPECT_EQ(Post("/v2/repository/models/scripted/unload", "").status, 400);
  EXPECT_EQ(Post("/v2/models/scripted/generate", R"({"text_input": "x"})").status, 200);
  EXPECT_EQ(Post("/v2/models/scripted/generate", "{").status, 400);
  const boost::json::value stats = Call("GET", "/v2/models/stats").Json().at("model_stats").at(0);
  EXPECT_EQ(stats.at("inference_count"), 1);
  EXPECT_EQ(stats.at("inference_stats").at("fail").at("count"), 1);
}

TEST_F(RestKserveTest, InfersTextAndTokenIds) {
  const HttpReply ids = Infer(
      R"({"id": "mine", "inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [[5, 6]]}],)"
      R"( "parameters": {"max_tokens": 3}})");
  ASSERT_EQ(ids.status, 200) << ids.body;
  EXPECT_EQ(ids.Json().at("id"), "mine");
  EXPECT_EQ(ids.Json().at("model_version"), "1");
  EXPECT_EQ(boost::json::serialize(ids.Json().at("outputs").at(1)),
            R"({"name":"output_ids","datatype":"INT64","shape":[3],"data":[5,6,7]})");
  engine_->SetScript(Ids("Hello, wörld"));
  const HttpReply text = Infer(
      R"({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}],)"
      R"( "outputs": [{"name": "finish_reason"}, {"name": "text_output"}], "parameters": {"max_tokens": 50}})");
  ASSERT_EQ(text.status, 200) << text.body;
  EXPECT_EQ(boost::json::serialize(text.Json().at("outputs")),
            R"([{"name":"finish_reason","datatype":"BYTES","shape":[1],"data":["stop"]},)"
            R"({"name":"text_output","datatype":"BYTES","shape":[1],"data":["Hello, wörld"]}])");
}

TEST_F(RestKserveTest, BytesFollowTheJson) {
  engine_->SetScript(Ids("ok"));
  const auto with = [this](const std::string& json, const std::string& bytes, int64_t length) {
    return Infer(json + bytes, {{"Content-Type", "application/octet-stream"},
                                {"Inference-Header-Content-Length", absl::StrCat(length)}});
  };
  const std::string json =
      R"({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}],)"
      R"( "parameters": {"binary_data_output": true, "max_tokens": 9}})";
  const std::string bytes("\x02\0\0\0hi", 6);
  const auto size = static_cast<int64_t>(json.size());
  const HttpReply reply = with(json, bytes, size);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const size_t head = std::stoul(reply.Header("Inference-Header-Content-Length"));
  const boost::json::value outputs = boost::json::parse(reply.body.substr(0, head)).at("outputs");
  EXPECT_EQ(outputs.at(0).at("parameters").at("binary_data_size"), 6);
  EXPECT_EQ(reply.body.substr(head, 6), std::string("\x02\0\0\0ok", 6));
  for (const auto& [b, length] : std::vector<std::pair<std::string, int64_t>>{{bytes.substr(0, 5), size},
                                                                              {bytes + "x", size},
                                                                              {bytes, size - 1},
                                                                              {bytes, size + 7},
                                                                              {bytes, -1}})
    EXPECT_EQ(with(json, b, length).status, 400) << length;
  EXPECT_EQ(with(json, std::string("\x03\0\0\0hi", 6), size).status, 400) << "an element beyond the end";
  EXPECT_EQ(with(json, std::string("\x02\0\0\0\xff\xff", 6), size).status, 400) << "no UTF-8";
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(RestKserveTest, ErrorsAreATextAlone) {
  for (
      const char* body :
      {"{", "{}", R"({"inputs": []})", R"({"inputs": 1})", R"({"inputs": [{"name": "text_input"}]})",
       R"({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1]}]})",
       R"({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]})",
       R"({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [5]}]})",
       R"({"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1], "data": ["a"]}]})",
       R"({"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [-1], "data": [1]}]})",
       R"({"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1], "data": [5]}], "outputs": [{"name": "x"}]})",
       R"({"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1], "data": [5]}], "parameters": {"n": 2}})"}) {
    const HttpReply reply = Infer(body);
    EXPECT_EQ(reply.status, 400) << body;
    EXPECT_NE(ErrorOf(reply), "") << body;
  }
  EXPECT_THAT(ErrorOf(Call("GET", "/v2/models/scripted/infer")), HasSubstr("POST"));
  EXPECT_EQ(engine_->num_submitted(), 0);
  // In a stream too.
  AnswerOptions options;
  options.api = Api::kKserve;
  StreamAnswer stream(options, 1);
  std::string events;
  stream.Add(GenerationEnd{absl::DeadlineExceededError("The request's deadline has passed."), {}}, &events);
  EXPECT_EQ(events, "data: {\"error\":\"The request's deadline has passed.\"}\n\n");
  EXPECT_EQ(Call("GET", "/v1/models/other").Error("code"), "model_not_found") << "elsewhere OpenAI's";
}

}  // namespace
}  // namespace sessa
