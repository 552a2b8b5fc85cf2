// REST: messages whose end two readers could see in two places. Whatever a proxy in front made of them, what
// follows the head is never answered as a request of its own: one reply, and the connection ends. The random
// neighbours of these are http_fuzz's.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kSmuggled[] = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";

int NumReplies(const std::string& bytes) {
  int count = 0;
  for (size_t at = bytes.find("HTTP/1."); at != std::string::npos; at = bytes.find("HTTP/1.", at + 1))
    ++count;
  return count;
}

class FramingTest : public RestTest {
 protected:
  // All that comes back for a GET with these header lines and a request behind it.
  std::string Answer(const std::string& fields, const std::string& version = "HTTP/1.1") {
    HttpClient client(server_->port());
    client.Send("GET /livez " + version + "\r\nHost: x\r\n" + fields + "\r\n" + kSmuggled);
    return client.ReadAll();
  }
  void ExpectRefused(const std::string& fields, const std::string& status = "400",
                     const std::string& version = "HTTP/1.1") {
    const std::string all = Answer(fields, version);
    EXPECT_THAT(all, StartsWith("HTTP/1.1 " + status + " ")) << fields;
    EXPECT_THAT(all, HasSubstr("Connection: close\r\n")) << fields;
    EXPECT_EQ(NumReplies(all), 1) << fields << all;
  }
};

TEST_F(FramingTest, OtherTransferEncodingsThanChunked) {
  for (const char* value : {"xchunked",
                            "identity",
                            "gzip",
                            "chunked, identity",
                            "chunked, gzip",
                            "chunked, chunked",
                            "chunkedx",
                            "chunked;q=1",
                            "\"chunked\"",
                            "chunked chunked",
                            "chunked,",
                            ",chunked",
                            ", chunked",
                            "",
                            ",",
                            "0",
                            "x chunked",
                            "chun\tked",
                            "chunked\x0b",
                            "\x0b"
                            "chunked",
                            "chunked\x80",
                            "deflate",
                            "trailers"}) {
    ExpectRefused(absl::StrCat("Transfer-Encoding: ", value, "\r\n"));
  }
  // Final and once, but under a coding that is not known here: RFC 9112, 6.1 asks for 501.
  for (const char* value : {"gzip, chunked", "identity,chunked", "deflate , gzip, chunked"})
    ExpectRefused(absl::StrCat("Transfer-Encoding: ", value, "\r\n"), "501");
}

TEST_F(FramingTest, MoreThanOneLength) {
  for (const char* fields :
       {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", "Content-Length: 0\r\nContent-Length: 36\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n", "Content-Length: 0, 36\r\n", "Content-Length: 0, 0\r\n",
        "Host: y\r\n"}) {
    ExpectRefused(fields);
  }
}

TEST_F(FramingTest, LengthsThatAreNoNumbers) {
  for (const char* value : {"+0", "-0", "-1", "0x0", "0 0", "0;", "\"0\"", "", ",", "0,", ",0", "1e1", "0.0",
                            "18446744073709551616", "99999999999999999999999", "O", "\xd9\xa0"}) {
    ExpectRefused(absl::StrCat("Content-Length: ", value, "\r\n"));
  }
}

TEST_F(FramingTest, OddSpacing) {
  for (const char* fields :
       {"Transfer-Encoding : chunked\r\n", "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n", "Transfer Encoding: chunked\r\n", "Content-Length : 36\r\n",
        "Transfer-Encoding: chunked\n", "Content-Length: 36\n", "Content-Length: 36\r",
        "X: y\nContent-Length: 36\r\n", "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n , identity\r\n", "Transfer-Encoding: chunked\r\n\tx\r\n",
        "Content-Length: 3\r\n 6\r\n", ": chunked\r\n", "\x0bX: y\r\n"}) {
    const std::string all = Answer(fields);
    EXPECT_THAT(all, StartsWith("HTTP/1.1 400 ")) << fields;
    EXPECT_EQ(NumReplies(all), 1) << fields << all;
  }
  HttpClient nul(server_->port());
  using std::string_literals::operator""s;
  nul.Send(
      absl::StrCat("GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \0chunked\r\n\r\n"s, kSmuggled));
  EXPECT_EQ(NumReplies(nul.ReadAll()), 1);
}

TEST_F(FramingTest, OldHttpHasNoTransferEncoding) {
  ExpectRefused("Transfer-Encoding: chunked\r\n", "400", "HTTP/1.0");
  ExpectRefused("Transfer-Encoding: identity\r\n", "400", "HTTP/1.0");
  ExpectRefused("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", "400", "HTTP/1.0");
}

TEST_F(FramingTest, ChunksThatAreNoChunks) {
  for (const char* chunks :
       {"0x0\r\n\r\n", "+0\r\n\r\n", "-0\r\n\r\n", " 0\r\n\r\n", "0 x\r\n\r\n", "\r\n\r\n", "g\r\n\r\n",
        "10000000000000000\r\n\r\n", "ffffffffffffffffff\r\n\r\n", "1\r\nxx\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n\r\n", "1\nx\n0\n\n\r\n", "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    HttpClient client(server_->port());
    client.Send(absl::StrCat("GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunks,
                             kSmuggled));
    const std::string all = client.ReadAll();
    EXPECT_THAT(all, StartsWith("HTTP/1.1 400 ")) << chunks;
    EXPECT_EQ(NumReplies(all), 1) << chunks << all;
  }
}

// The other side: what is well framed is read to its end, and the next request is answered.
TEST_F(FramingTest, WellFramedRequestsAreFollowed) {
  for (const char* message :
       {"\r\n", "Content-Length: 0\r\n\r\n", "Content-Length: 3\r\n\r\nabc", "content-length:\t3 \r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "TRANSFER-ENCODING:Chunked \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        // A folded line is one space (RFC 9112, 5.2).
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n003;a=b;c=\"d\"\r\nabc\r\n000\r\nX-Trailer: y\r\n\r\n"}) {
    HttpClient client(server_->port());
    client.Send(absl::StrCat("GET /livez HTTP/1.1\r\nHost: x\r\n", message,
                             "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    const std::string all = client.ReadAll();
    EXPECT_EQ(NumReplies(all), 2) << message << all;
    EXPECT_THAT(all, StartsWith("HTTP/1.1 200 ")) << message;
  }
}

}  // namespace
}  // namespace sessa
