// One POST /v1/similarity that core has accepted: its Similarity with the reply that comes of it. See call.h.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/core/similarity.h"
#include "server/rest/call.h"

namespace sessa {

class SimilarityCall final : public Call {
 public:
  SimilarityCall(std::unique_ptr<Similarity> similarity, std::string id, int64_t created,
                 std::vector<std::pair<std::string, std::string>> headers)
      : similarity_(std::move(similarity)),
        id_(std::move(id)),
        created_(created),
        headers_(std::move(headers)) {}

  bool is_stream() const override { return false; }
  void SetNotify(std::function<void()> notify) override { similarity_->SetNotify(std::move(notify)); }
  bool Pull(std::string*, size_t) override { return similarity_->Advance(kMaxEvents); }
  bool ended() const override { return similarity_->ended(); }
  const absl::Status& status() const override { return similarity_->result().status(); }
  Usage usage() const override { return similarity_->usage(); }
  Reply MakeReply() override;

 private:
  const std::unique_ptr<Similarity> similarity_;
  const std::string id_;
  const int64_t created_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace sessa
