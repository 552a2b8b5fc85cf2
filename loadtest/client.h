// What the runner needs of a protocol. REST and gRPC each implement it. All is called on the loop's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/call.h"

namespace sessa::loadtest {

struct Tenant {
  std::string name;
  std::string key;  // empty: none is sent
  double share = 1;
};

// What every request asks for beside its prompt and lengths.
struct RequestOptions {
  std::string model;  // empty: none is named
  double temperature = 0;
  bool ignore_eos = true;
  bool return_token_ids = true;  // REST: ask for the ids of tokens, so that they can be counted
  bool prompt_as_text = false;   // words instead of ids
  bool chat = false;             // REST: /v1/chat/completions; implies text
  std::string extra_body;        // REST: members added to each body, without braces
  double timeout_seconds = 600;  // this client's own limit
  std::vector<Tenant> tenants;   // at least one
};

class Client {
 public:
  using Done = std::function<void(std::unique_ptr<Call>)>;

  virtual ~Client() = default;
  // Costs CPU, so that it is done ahead: makes call->payload.
  virtual void Encode(Call* call) const = 0;
  // Sends it and fills its record; `done` comes later, on the loop's thread, exactly once. Requires: Encode.
  virtual void Send(std::unique_ptr<Call> call, Done done) = 0;
  // Ends what is under way with this outcome; each is still handed to its `done`, before or after this
  // returns.
  virtual void CancelAll(Outcome outcome, const std::string& why) = 0;

  // Tokens received so far, of all requests. Any thread.
  int64_t num_tokens() const { return num_tokens_.load(std::memory_order_relaxed); }

 protected:
  std::atomic<int64_t> num_tokens_ = 0;
};

}  // namespace sessa::loadtest
