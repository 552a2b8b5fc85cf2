// REST: what HTTP allows a client to do that most do not: preflights of browsers, a proxy's form of target,
// HEAD, a body that is compressed, and a side that is closed before the answer has come.
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "server/rest/body_decoder.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kPage[] = "http://localhost:3000";

std::string Gzip(const std::string& text) {
  std::string out(compressBound(text.size()) + 64, '\0');
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

class RestHttpTest : public RestTest {
 protected:
  void StartWithCors(const std::string& origins) {
    RestServerOptions rest;
    rest.cors = *Cors::Parse(origins);
    Start({}, rest);
    Load();
  }
  HttpReply Coded(const std::string& coding, const std::string& body, const char* path = kCompletions) {
    return Post(path, body, {{"Content-Encoding", coding}});
  }
};

TEST_F(RestHttpTest, PreflightsOfAllowedPagesAreAnswered) {
  const auto preflight = [this](const std::string& origin, const std::string& path = "/v1/chat/completions") {
    return Call("OPTIONS", path, "",
                {{"Origin", origin},
                 {"Access-Control-Request-Method", "POST"},
                 {"Access-Control-Request-Headers", "authorization,content-type"}});
  };
  ServiceOptions keys;
  keys.api_keys = *ApiKeys::Parse("alpha team-a\n");
  RestServerOptions rest;
  rest.cors = *Cors::Parse("http://localhost:3000, https://example.org");
  Start(std::move(keys), rest);
  Load();
  const HttpReply allowed = preflight(kPage);  // without the key, which a browser does not send yet
  EXPECT_EQ(allowed.status, 204);
  EXPECT_EQ(allowed.body, "");
  EXPECT_EQ(allowed.Header("Access-Control-Allow-Origin"), kPage);
  EXPECT_EQ(allowed.Header("Access-Control-Allow-Methods"), "POST");
  EXPECT_EQ(allowed.Header("Access-Control-Allow-Headers"), "authorization,content-type");
  EXPECT_EQ(allowed.Header("Vary"), "Origin");
  EXPECT_EQ(preflight(kPage, "/v1/models").Header("Access-Control-Allow-Methods"), "GET, HEAD");
  EXPECT_EQ(preflight(kPage, "/nowhere").status, 404);
  for (const char* origin : {"http://localhost:3001", "http://localhost:3000.evil.org", "null", "*"}) {
    const HttpReply other = preflight(origin);
    EXPECT_EQ(other.Header("Access-Control-Allow-Origin"), "") << origin;
    EXPECT_EQ(other.Header("Access-Control-Allow-Methods"), "") << origin;
    EXPECT_EQ(other.Header("Vary"), "Origin") << origin;
  }
  // The page may read refusals too, and streams.
  const HttpReply refused = Post(kCompletions, "{}", {{"Origin", kPage}});
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.Header("Access-Control-Allow-Origin"), kPage);
  const HttpReply stream = Post(kCompletions, R"({"prompt": [1], "stream": true})",
                                {{"Origin", kPage}, {"Authorization", "Bearer alpha"}});
  EXPECT_EQ(stream.status, 200);
  EXPECT_EQ(stream.Header("Access-Control-Allow-Origin"), kPage);
  EXPECT_THAT(stream.Header("Access-Control-Expose-Headers"), HasSubstr("X-Request-Id"));
}

TEST_F(RestHttpTest, CorsIsOffUnlessOriginsAreNamed) {
  Load();
  const HttpReply off = Call("OPTIONS", kCompletions, "", {{"Origin", kPage}});
  EXPECT_EQ(off.status, 204);
  EXPECT_EQ(off.Header("Allow"), "POST, OPTIONS");
  EXPECT_EQ(off.Header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(off.Header("Vary"), "");
  EXPECT_EQ(Call("OPTIONS", "*").Header("Allow"), "GET, HEAD, POST, OPTIONS");
  StartWithCors("*");
  EXPECT_EQ(Call("GET", "/livez", "", {{"Origin", kPage}}).Header("Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(Call("GET", "/livez").Header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(Call("OPTIONS", "/livez", "", {{"Origin", kPage}, {"Access-Control-Request-Headers", "a\x01: b"}})
                .status,
            400);
  for (const char* bad : {"localhost:3000", "http://", "http://x/", "http://X", "*,http://x", "http://a b"})
    EXPECT_FALSE(Cors::Parse(bad).ok()) << bad;
}

TEST_F(RestHttpTest, TargetsInAnyForm) {
  Load();
  for (const char* target : {"http://x/health", "HTTP://x:80/health", "https://user@x/health?a=b",
                             "http://x/%68ealth", "/health?http://x/"}) {
    EXPECT_EQ(Call("GET", target).status, 200) << target;
  }
  EXPECT_THAT(Call("GET", "http://x").Header("Content-Type"), HasSubstr("text/html"));
  EXPECT_THAT(Call("GET", "http://x?q").Header("Content-Type"), HasSubstr("text/html"));
  for (const char* target : {"ftp://x/health", "http:/health", "x/health", "http://x//health"})
    EXPECT_EQ(Call("GET", target).status, 404) << target;
  HttpClient client(server_->port());
  client.Send(RequestBytes("POST", "http://x/v1/completions", R"({"prompt": [1]})"));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(RestHttpTest, HeadIsGetWithoutItsBody) {
  Load();
  HttpClient client(server_->port());
  for (const char* path : {"/",
                           "/livez",
                           "/readyz",
                           "/startupz",
                           "/health",
                           "/ping",
                           "/version",
                           "/v1/models",
                           "/v1/models/scripted",
                           "/v1/models/other",
                           "/v1/limits",
                           "/openapi.json",
                           "/load",
                           "/get_load",
                           "/model_info",
                           "/server_info",
                           "/tokenizer_info",
                           "/nowhere",
                           kCompletions,
                           "/v2/models/scripted"}) {
    client.Send(RequestBytes("HEAD", path));
    const HttpReply head = client.Read(true);
    client.Send(RequestBytes("GET", path));
    const HttpReply get = client.Read();
    EXPECT_EQ(head.status, get.status) << path;
    EXPECT_EQ(head.Header("Content-Length"), get.Header("Content-Length")) << path;
    EXPECT_EQ(head.Header("Content-Type"), get.Header("Content-Type")) << path;
  }
}

TEST_F(RestHttpTest, CompressedBodiesAreServed) {
  Load();
  const std::string body = R"({"prompt": [5, 6], "max_tokens": 3, "return_token_ids": true})";
  const std::string expected = boost::json::serialize(Complete(body).Json().at("choices"));
  const std::string half = body.substr(0, 20), rest = body.substr(20);
  for (const auto& [coding, coded] :
       std::vector<std::pair<std::string, std::string>>{{"gzip", Gzip(body)},
                                                        {"GZIP", Gzip(half) + Gzip(rest)},
                                                        {"x-gzip", Gzip(body)},
                                                        {"zstd", Zstd(body)},
                                                        {"zstd", Zstd(half) + Zstd(rest)},
                                                        {"identity", body},
                                                        {"", body}}) {
    const HttpReply reply = Coded(coding, coded);
    ASSERT_EQ(reply.status, 200) << coding << reply.body;
    EXPECT_EQ(boost::json::serialize(reply.Json().at("choices")), expected) << coding;
  }
  EXPECT_EQ(Coded("gzip", Gzip(R"({"prompt": "x"})"), "/tokenize").status, 200);
  EXPECT_EQ(Coded("gzip", Gzip("{"), "/tokenize").Error("code"), "invalid_json");
}

TEST_F(RestHttpTest, ShortCompressedBodiesDoNotWaitForLongOnes) {
  ServiceOptions options;
  options.num_text_threads = 1;
  Start(options);
  Load();
  absl::Notification begun, go_on;
  ASSERT_TRUE(service_->text_pool().Post(TextPool::kLongBytes + 1,
                                         [&] { begun.Notify(), go_on.WaitForNotification(); }));
  begun.WaitForNotification();
  // One that becomes long: it waits, and after it is read another is served.
  const std::string zeros =
      absl::StrCat(R"({"prompt": "x", "max_tokens": 1, "x": ")", std::string(9000, '0'), "\"}");
  HttpClient becomes_long(server_->port());
  becomes_long.Send(RequestBytes("POST", kCompletions, Gzip(zeros), {{"Content-Encoding", "gzip"}}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Coded("gzip", Gzip(R"({"prompt": "x", "max_tokens": 1})")).status, 200);
    EXPECT_EQ(Coded("zstd", Zstd(R"({"prompt": "x", "max_tokens": 1})")).status, 200);
    EXPECT_EQ(Coded("gzip", "{}").status, 400);
  }
  EXPECT_FALSE(becomes_long.HasAnswer());
  go_on.Notify();
  EXPECT_EQ(becomes_long.Read().status, 200);
}

TEST_F(RestHttpTest, WhatIsNotOfItsCodingIsRefused) {
  Load();
  const std::string gzip = Gzip(R"({"prompt": [1]})"), zstd = Zstd(R"({"prompt": [1]})");
  std::string broken = gzip;
  broken[gzip.size() - 6] ^= 1;  // the checksum
  for (const auto& [coding, coded] :
       std::vector<std::pair<std::string, std::string>>{{"gzip", ""},
                                                        {"gzip", "{}"},
                                                        {"gzip", zstd},
                                                        {"gzip", gzip.substr(0, gzip.size() - 1)},
                                                        {"gzip", gzip + "x"},
                                                        {"gzip", broken},
                                                        {"zstd", ""},
                                                        {"zstd", gzip},
                                                        {"zstd", zstd.substr(0, zstd.size() - 1)},
                                                        {"zstd", zstd + "x"}}) {
    const HttpReply reply = Coded(coding, coded);
    EXPECT_EQ(reply.status, 400) << coding;
    EXPECT_EQ(reply.Error("code"), "invalid_content_encoding");
  }
  for (const char* coding : {"br", "deflate", "gzip, zstd", "gzip, gzip", "compress", "gzip;q=1"}) {
    const HttpReply reply = Coded(coding, gzip);
    EXPECT_EQ(reply.status, 415) << coding;
    EXPECT_EQ(reply.Error("code"), "unsupported_content_encoding");
    EXPECT_EQ(reply.Header("Accept-Encoding"), "gzip, zstd");
  }
  EXPECT_EQ(Post(kCompletions, gzip, {{"Content-Encoding", "gzip"}, {"Content-Encoding", "gzip"}}).status,
            415);
  EXPECT_EQ(engine_->num_submitted(), 0);
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(RestHttpTest, TheBoundIsThatOfTheDecodedBody) {
  ServiceOptions options;
  options.limits.max_body_bytes = 64 << 10;
  Start(std::move(options));
  Load();
  const std::string head = R"({"prompt": [1], "user": ")";
  const auto padded = [&](int64_t size) { return head + std::string(size - head.size() - 2, 'x') + "\"}"; };
  for (const char* coding : {"gzip", "zstd"}) {
    const auto coded = [&](int64_t size) {
      return std::string(coding) == "gzip" ? Gzip(padded(size)) : Zstd(padded(size));
    };
    EXPECT_EQ(Coded(coding, coded(64 << 10)).status, 200);
    const HttpReply beyond = Coded(coding, coded((64 << 10) + 1));
    EXPECT_EQ(beyond.status, 413) << coding;
    EXPECT_EQ(beyond.Error("code"), "request_too_large");
    EXPECT_EQ(Coded(coding, coded(60 << 20)).status, 413) << coding;
  }
  EXPECT_EQ(service_->byte_budget().used(), 0);
}

TEST(BodyDecoderTest, StopsWhereNoRoomIsLeft) {
  const std::string text(1 << 20, 'x');
  int64_t most = 0;
  const auto charge = [&](int64_t bytes) { return (most = std::max(most, bytes)) <= 200'000; };
  std::string out;
  EXPECT_EQ(DecodeBody(ContentCoding::kGzip, Gzip(text), 4 << 20, charge, &out), DecodeResult::kNoRoom);
  EXPECT_LE(out.size(), 100'000u);
  // A window larger than any body that is taken: refused before it is allocated.
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27);
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  std::string wide(ZSTD_compressBound(text.size()), '\0');
  ZSTD_inBuffer in = {text.data(), text.size(), 0};
  ZSTD_outBuffer to = {wide.data(), wide.size(), 0};
  while (ZSTD_compressStream2(context, &to, &in, in.pos < in.size ? ZSTD_e_continue : ZSTD_e_end) > 0) {
  }
  ZSTD_compressStream2(context, &to, &in, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  out.clear();
  EXPECT_EQ(DecodeBody(
                ContentCoding::kZstd, absl::string_view(wide.data(), to.pos), 4 << 20,
                [](int64_t) { return true; }, &out),
            DecodeResult::kMalformed);
}

TEST_F(RestHttpTest, AClientThatClosedItsSideGetsItsAnswer) {
  RestServerOptions rest;
  rest.num_threads = 1;  // an event that has come has been written: else its writing alone is the probe
  Start({}, rest);
  Load();
  for (const char* stream : {"false", "true"}) {
    engine_->Hold();  // the close comes before the engine has the request
    HttpClient client(server_->port());
    client.Send(RequestBytes("POST", kCompletions,
                             absl::StrCat(R"({"prompt": [5], "max_tokens": 3, "stream": )", stream, "}")));
    client.FinishSending();
    HttpReply interim = client.Read(true);
    EXPECT_EQ(interim.status, 100);  // nothing, to one that is still there
    engine_->Release();
    const HttpReply reply = client.Read();
    EXPECT_EQ(reply.status, 200);
    EXPECT_THAT(reply.body, HasSubstr("\"finish_reason\":\"length\""));
    EXPECT_EQ(client.ReadAll(), "");
  }
  // A stream that has begun: a comment, between its events.
  HttpClient client(server_->port());
  client.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99, 7], "stream": true})"));
  ASSERT_TRUE(engine_->WaitForSubmitted(3));
  std::string all;
  while (all.find("data: ") == std::string::npos) all += client.ReadSome();
  client.FinishSending();
  while (all.find("\r\n:\n\n\r\n") == std::string::npos) all += client.ReadSome();
  engine_->Cancel(3);
  EXPECT_THAT(client.ReadAll(), HasSubstr("[DONE]"));
}

TEST_F(RestHttpTest, AClientThatIsGoneIsNotWorkedFor) {
  Load();
  int submitted = 0;
  for (const char* stream : {"false", "true"}) {
    {
      HttpClient client(server_->port());
      client.Send(
          RequestBytes("POST", kCompletions, absl::StrCat(R"({"prompt": [99], "stream": )", stream, "}")));
      ASSERT_TRUE(engine_->WaitForSubmitted(++submitted));
    }
    EXPECT_TRUE(engine_->WaitForCancelled(submitted)) << stream;
  }
  {
    HttpClient old(server_->port());  // HTTP/1.0 has nothing that it could be sent
    old.Send(
        "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
        "{\"prompt\": [99]}");
    ASSERT_TRUE(engine_->WaitForSubmitted(++submitted));
    old.FinishSending();
    EXPECT_TRUE(engine_->WaitForCancelled(submitted));
  }
}

}  // namespace
}  // namespace sessa
