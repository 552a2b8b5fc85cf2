#include "server/group/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sessa {
namespace {

// Of these lines and of what follows them (step_message.h, rank_group.cc): raised with each change.
constexpr char kGreeting[] = "sessa-group 1 ";

std::string Proof(absl::string_view secret, absl::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

bool IsProof(absl::string_view given, absl::string_view secret, absl::string_view text) {
  const std::string right = Proof(secret, text);
  return given.size() == right.size() && CRYPTO_memcmp(given.data(), right.data(), right.size()) == 0;
}

absl::Status NotAHello(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("not a rank's greeting: ", why));
}

}  // namespace

std::string RandomHex() {
  unsigned char bytes[16];
  RAND_bytes(bytes, sizeof(bytes));
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes), sizeof(bytes)));
}

std::string WriteHello(const Hello& hello, absl::string_view challenge, absl::string_view secret) {
  std::string text = absl::StrCat("kind=", hello.kind == Hello::Kind::kWork ? "work" : "watch",
                                  "\nrank=", hello.rank, "\nnonce=", hello.nonce, "\n");
  if (hello.kind == Hello::Kind::kWatch) absl::StrAppend(&text, "token=", hello.token, "\n");
  for (const auto& [name, value] : hello.facts) absl::StrAppend(&text, name, "=", value, "\n");
  return absl::StrCat(text, "proof=", Proof(secret, absl::StrCat(challenge, "\n", text)), "\n\n");
}

absl::StatusOr<Hello> ReadHello(absl::string_view text, absl::string_view challenge,
                                absl::string_view secret) {
  if (text.size() > kMaxHelloBytes) return NotAHello("it is too long");
  if (!absl::ConsumeSuffix(&text, "\n\n")) return NotAHello("it has no end");
  const size_t last = text.rfind('\n');
  if (last == absl::string_view::npos) return NotAHello("it is one line");
  absl::string_view body = text.substr(0, last + 1), proof = text.substr(last + 1);
  if (!absl::ConsumePrefix(&proof, "proof=")) return NotAHello("it has no proof");
  if (!IsProof(proof, secret, absl::StrCat(challenge, "\n", body)))
    return absl::PermissionDeniedError("the group's secret is another (--group_secret_file)");

  Hello hello;
  std::vector<std::pair<absl::string_view, absl::string_view>> lines;
  body.remove_suffix(1);
  for (const absl::string_view line : absl::StrSplit(body, '\n')) {
    const size_t equals = line.find('=');
    if (equals == absl::string_view::npos) return NotAHello("a line is not NAME=VALUE");
    lines.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
  if (lines.size() < 3 || lines[0].first != "kind" || lines[1].first != "rank" || lines[2].first != "nonce")
    return NotAHello("kind, rank and nonce are missing");
  if (lines[0].second != "work" && lines[0].second != "watch") return NotAHello("of no kind");
  hello.kind = lines[0].second == "work" ? Hello::Kind::kWork : Hello::Kind::kWatch;
  if (!absl::SimpleAtoi(lines[1].second, &hello.rank)) return NotAHello("its rank is no number");
  hello.nonce = std::string(lines[2].second);
  size_t next = 3;
  if (hello.kind == Hello::Kind::kWatch) {
    if (lines.size() != 4 || lines[3].first != "token") return NotAHello("the token is missing");
    hello.token = std::string(lines[next++].second);
  }
  for (; next < lines.size(); ++next) hello.facts.emplace_back(lines[next]);
  return hello;
}

absl::Status CompareFacts(const GroupFacts& leader, const GroupFacts& member) {
  for (size_t i = 0; i < std::max(leader.size(), member.size()); ++i) {
    if (i >= leader.size() || i >= member.size() || leader[i].first != member[i].first)
      return absl::FailedPreconditionError("it is of another version");
    if (leader[i].second != member[i].second) {
      return absl::FailedPreconditionError(absl::StrCat(leader[i].first, " is ", member[i].second, ", and ",
                                                        leader[i].second, " with the leader"));
    }
  }
  return absl::OkStatus();
}

std::string WriteChallenge(absl::string_view challenge) { return absl::StrCat(kGreeting, challenge, "\n"); }

absl::StatusOr<std::string> ReadChallenge(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, kGreeting) || !absl::ConsumeSuffix(&line, "\n"))
    return absl::FailedPreconditionError("what listens there is no leader of a group, or of another version");
  return std::string(line);
}

std::string WriteWelcome(absl::string_view nonce, absl::string_view token, absl::string_view secret) {
  return absl::StrCat("welcome ", Proof(secret, absl::StrCat(nonce, "\n", token)), " ", token, "\n");
}

std::string WriteRefusal(const absl::Status& why) { return absl::StrCat("refused ", why.message(), "\n"); }

absl::StatusOr<std::string> ReadAnswer(absl::string_view line, absl::string_view nonce,
                                       absl::string_view secret) {
  absl::ConsumeSuffix(&line, "\n");
  if (absl::ConsumePrefix(&line, "refused "))
    return absl::FailedPreconditionError(absl::StrCat("the leader refuses this rank: ", line));
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || words[0] != "welcome")
    return absl::FailedPreconditionError("the leader's answer is not one");
  if (!IsProof(words[1], secret, absl::StrCat(nonce, "\n", words[2])))
    return absl::PermissionDeniedError("the leader does not know the group's secret (--group_secret_file)");
  return std::string(words[2]);
}

}  // namespace sessa
