// What comes to the group's port before anybody is known there, and what a member takes for its leader's
// lines. The bytes are tried as they are, and as the body of a greeting with a right proof, whose reading is
// then all that there is between them and the group.
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/group/handshake.h"
#include "tests/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sessa;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  Check(!ReadHello(text, "challenge", "secret").ok() || absl::StrContains(text, "proof="));
  // A hello of which the text is a fact's: what is read is what was written, or nothing.
  const size_t half = size / 2;
  const Hello hello = {size % 2 == 0 ? Hello::Kind::kWork : Hello::Kind::kWatch,
                       static_cast<int>(size),
                       std::string(text.substr(0, half)),
                       std::string(text.substr(half)),
                       {{"name", std::string(text)}}};
  const std::string written = WriteHello(hello, "challenge", "secret");
  const auto read = ReadHello(written, "challenge", "secret");
  if (read.ok()) {
    Check(WriteHello(*read, "challenge", "secret") == written);
    Check(!ReadHello(written, "another", "secret").ok() && !ReadHello(written, "challenge", "other").ok());
    CompareFacts(hello.facts, read->facts).IgnoreError();
  }
  ReadChallenge(text).status().IgnoreError();
  Check(!ReadAnswer(text, "nonce", "secret").ok());
  return 0;
}
