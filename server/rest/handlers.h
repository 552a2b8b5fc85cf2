// What each endpoint does, apart from sockets: a head is judged before its body is read, a whole request
// becomes a reply or an accepted generation. Thread-safe; the Exchange belongs to the caller.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "server/core/service.h"
#include "server/kserve/infer_json.h"
#include "server/rest/body_decoder.h"
#include "server/rest/call.h"
#include "server/rest/cors.h"
#include "server/rest/http_message.h"
#include "server/rest/request_json.h"
#include "server/rest/router.h"

namespace sessa {

// One request on its way through: filled by Judge, used up by Handle.
struct Exchange {
  RequestHead head;
  Route route;
  RequestTicket ticket;  // of a generation request, until core has it
  std::string tenant;
  ContentCoding coding = ContentCoding::kIdentity;  // of the body
  std::string client;                               // address:port
  absl::Time start = MonotonicNow();
  int status = 0;                           // of the answer, once it is there
  std::string error_code, reason;           // of an answer that is an error
  const std::atomic<bool>* gone = nullptr;  // true: the client left

  void Answer(const Reply& reply) {
    status = reply.status;
    error_code = reply.error_code;
    reason = reply.reason;
  }
};

class Handlers {
 public:
  enum class Scope {
    kAll,
    kAdmin,  // there is nothing but probes and metrics
    kSpare,  // the connection is one above the cap: a single request, and 503 unless it is such
  };
  // `service` outlives this.
  Handlers(Service* service, Scope scope, Cors cors)
      : service_(service), scope_(scope), cors_(std::move(cors)) {}

  // The answer to OPTIONS, 400, 404, 405, 401, 429, 415, 413, 503, or none: read the body. Takes the ticket
  // of a generation request.
  std::optional<Reply> Judge(Exchange* exchange) const;
  // Writes an error as clients of its path read it.
  static void SpeakAs(const RequestHead& head, Reply* reply);
  // Marks the exchange as refused with `status` before it came to Handle (413 while reading, 408, a client
  // that left).
  void Abandon(Exchange* exchange, Outcome outcome, int status) const {
    exchange->ticket.Finish(outcome, status);
    exchange->status = status;
  }

  // The error, which is what the exchange's ticket ends with.
  static Reply Refuse(Exchange* exchange, const absl::Status& why);
  // The refusal, 503, of who finds no room for its bytes (byte_budget.h). It comes at once, as a body that
  // waits for room holds what it has, and where many do none gets on; its sender may come again.
  Reply OutOfBytes(Exchange* exchange) const;

  using Result = std::variant<Reply, std::unique_ptr<Call>>;
  // Requires: Judge gave none. Never throws.
  Result Handle(Exchange* exchange, const std::string& body) const;

  // The access log's line of a generation request that was answered; `call` null: it was refused.
  void LogAccess(const Exchange& exchange, const Call* call) const;

  // Handle on a thread of the text pool, or on this one when there is no body: `done` gets the result there.
  // Where too much waits in the pool already the result is a refusal; once `gone` is set, anything.
  void HandleText(Exchange* exchange, std::string body, const std::atomic<bool>& gone,
                  std::function<void(Result)> done) const;

  const Limits& limits() const { return service_->limits(); }
  ByteBudget* byte_budget() const { return &service_->byte_budget(); }

 private:
  std::optional<Reply> JudgeWork(Exchange* exchange) const;  // Judge, once the tenant is known
  std::optional<Reply> JudgeBody(Exchange* exchange) const;
  Reply Options(const Exchange& exchange) const;
  std::optional<Reply> Decode(Exchange* exchange, const std::string& body, ByteBudget::Lease* lease,
                              std::string* decoded) const;
  Result Dispatch(Exchange* exchange, const std::string& body) const;
  Result Generate(Exchange* exchange, const std::string& body) const;
  Result Similarity(Exchange* exchange, const std::string& body) const;
  Reply Probe(const absl::Status& status, Endpoint endpoint) const;
  Reply Model(const Route& route) const;
  absl::StatusOr<ParsedGeneration> Parse(const Exchange& exchange, const std::string& body,
                                         ParsedInfer* infer) const;
  Reply Tokenize(const Exchange& exchange, const std::string& body) const;
  Reply Detokenize(const std::string& body) const;

  Service* const service_;
  const Scope scope_;
  const Cors cors_;
};

}  // namespace sessa
