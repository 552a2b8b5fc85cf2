// How the processes of a group of ranks know each other: lines of text, before anything else is said on a
// connection.
//
//   leader   sessa-group 1 CHALLENGE                              at once
//   member   kind=work|watch, rank=N, nonce=HEX, facts as NAME=VALUE, proof=HEX, an empty line
//   leader   welcome PROOF TOKEN | refused WHY
//   leader   begin                                                on `work`, once all members have come
//
// A proof is HMAC-SHA256 under the group's secret, of what the other end has made up and what this end says.
// The facts are what all processes must have in common. A member makes two connections: `work`, which
// RankGroup speaks on afterwards, and with its token `watch`, for GroupWatch.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

// In an order that all keep; names and values without line breaks.
using GroupFacts = std::vector<std::pair<std::string, std::string>>;

struct Hello {
  enum class Kind { kWork, kWatch } kind = Kind::kWork;
  int rank = 0;
  std::string nonce;  // that the member has made up
  std::string token;  // of `watch`: what `work` was given; else empty
  GroupFacts facts;   // of `work`; else empty
};

// The most bytes of a hello.
inline constexpr size_t kMaxHelloBytes = 16 << 10;

// 128 random bits, as hexadecimal digits.
std::string RandomHex();

std::string WriteHello(const Hello& hello, absl::string_view challenge, absl::string_view secret);
// `text` ends with the empty line. INVALID_ARGUMENT: it is no hello; PERMISSION_DENIED: its proof is wrong.
absl::StatusOr<Hello> ReadHello(absl::string_view text, absl::string_view challenge,
                                absl::string_view secret);

// FAILED_PRECONDITION names the first fact that differs, with both values.
absl::Status CompareFacts(const GroupFacts& leader, const GroupFacts& member);

// The leader's first line and the answers; all end with a line break.
std::string WriteChallenge(absl::string_view challenge);
absl::StatusOr<std::string> ReadChallenge(absl::string_view line);
std::string WriteWelcome(absl::string_view nonce, absl::string_view token, absl::string_view secret);
std::string WriteRefusal(const absl::Status& why);
// The token. FAILED_PRECONDITION: refused, with why; PERMISSION_DENIED: the leader does not know the secret.
absl::StatusOr<std::string> ReadAnswer(absl::string_view line, absl::string_view nonce,
                                       absl::string_view secret);

inline constexpr char kBegin[] = "begin\n";

}  // namespace sessa
