#include "tests/engine/model_harness.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace sessa {

absl::StatusOr<std::unique_ptr<ModelHarness>> ModelHarness::Create(const ModelConfig& config,
                                                                   const WeightSource& weights,
                                                                   const Options& options) {
  auto harness = std::make_unique<ModelHarness>();
  harness->config_ = config;
  harness->options_ = options;
  const int R = options.ranks;
  // A sequence's pages come from the classes in turn, a tile at a time: leave room for the uneven rest.
  const int num_pages = (options.max_tokens / options.page_size + 64 * R) / R * R;
  harness->ranks_.resize(R);
  std::vector<Backend*> backends;
  for (Rank& rank : harness->ranks_) {
    if (options.make_backend) {
      auto backend = options.make_backend();
      if (!backend.ok()) return backend.status();
      rank.backend = *std::move(backend);
    } else {
      rank.backend = MakeCpuBackend(options.cpu);
    }
    backends.push_back(rank.backend.get());
  }
  auto communicators = options.make_backend ? MakeHostCommunicators(backends) : MakeThreadCommunicators(R);
  for (int r = 0; r < R; ++r) {
    Rank& rank = harness->ranks_[r];
    rank.communicator = std::move(communicators[r]);
    auto model = Model::Load(config, weights, {options.weight_dtype, options.state_dtype, options.max_rows},
                             rank.backend.get(), rank.communicator.get());
    if (!model.ok()) return model.status();
    rank.model = *std::move(model);
    auto cache =
        StateCache::Create(rank.model->StateShapes(),
                           {options.page_size, num_pages, R, options.max_sequences}, r, rank.backend.get());
    if (!cache.ok()) return cache.status();
    rank.cache = std::make_unique<StateCache>(*std::move(cache));
    auto& free = harness->free_pages_.emplace_back();
    // Taken from the back, and every other one first: neighbours in a sequence are not neighbours in memory.
    const int first = num_pages / R * r, last = num_pages / R * (r + 1);
    for (int parity : {0, 1}) {
      for (int p = first; p < last; ++p) {
        if (p % 2 == parity) free.push_back(p);
      }
    }
  }
  return harness;
}

int ModelHarness::AddSequence(std::vector<int32_t> tokens) {
  Sequence& s = sequences_.emplace_back();
  s.tokens = std::move(tokens);
  s.hidden.resize(config_.num_layers);
  return static_cast<int>(sequences_.size()) - 1;
}

absl::Status ModelHarness::Step(const std::vector<Piece>& pieces) {
  StepPlan plan;
  for (const Piece& piece : pieces) {
    Sequence& s = sequences_[piece.sequence];
    PlanSequence p;
    p.sequence_id = piece.sequence;
    p.first_row = plan.num_rows();
    p.num_rows = piece.num_rows;
    p.start = s.num_computed;
    p.slot = p.state_from = piece.sequence;
    for (int i = 0; i < piece.num_rows; ++i) {
      plan.token_ids.push_back(s.tokens[s.num_computed + i]);
      plan.positions.push_back(s.num_computed + i);
    }
    s.num_computed += piece.num_rows;
    while (static_cast<int>(s.pages.size()) * options_.page_size < s.num_computed) {
      const int token = static_cast<int>(s.pages.size()) * options_.page_size;
      auto& free = free_pages_[token / kTileTokens % options_.ranks];
      if (free.empty()) return absl::ResourceExhaustedError("harness: max_tokens is too small");
      s.pages.push_back(free.back());
      free.pop_back();
    }
    p.pages = s.pages;
    plan.sequences.push_back(std::move(p));
  }
  std::vector<int32_t> rows(plan.num_rows());
  for (int i = 0; i < plan.num_rows(); ++i) rows[i] = i;
  ForwardTrace trace;
  std::vector<std::vector<float>> logits(ranks_.size());
  std::vector<absl::Status> statuses(ranks_.size());
  const int V = config_.vocab_size, D = config_.hidden_size;
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    threads.emplace_back([&, r] {
      Rank& rank = ranks_[r];
      const Matrix device = rank.model->Forward(plan, rows, rank.cache.get(),
                                                r == 0 && options_.keep_hidden ? &trace : nullptr);
      logits[r].resize(size_t{rows.size()} * V);
      rank.backend->CopyOut(device.data, logits[r].size() * sizeof(float), logits[r].data());
      statuses[r] = rank.backend->Synchronize();
    });
  }
  for (std::thread& t : threads) t.join();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (!statuses[r].ok()) return statuses[r];
    if (std::memcmp(logits[0].data(), logits[r].data(), logits[r].size() * sizeof(float)) != 0)
      return absl::InternalError("ranks disagree on the logits");
  }
  for (const PlanSequence& p : plan.sequences) {
    Sequence& s = sequences_[p.sequence_id];
    const float* first = logits[0].data() + int64_t{p.first_row} * V;
    s.logits.insert(s.logits.end(), first, first + int64_t{p.num_rows} * V);
    for (size_t l = 0; l < trace.hidden.size(); ++l) {
      const float* x = trace.hidden[l].data() + int64_t{p.first_row} * D;
      s.hidden[l].insert(s.hidden[l].end(), x, x + int64_t{p.num_rows} * D);
    }
  }
  return absl::OkStatus();
}

absl::Status ModelHarness::Finish(int sequence, int chunk) {
  Sequence& s = sequences_[sequence];
  while (s.num_computed < static_cast<int>(s.tokens.size())) {
    const int n = std::min<int>(chunk, s.tokens.size() - s.num_computed);
    if (absl::Status status = Step({{sequence, n}}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<float> ModelHarness::ReadState(int sequence, int layer, int tensor) {
  const Sequence& s = sequences_[sequence];
  const PagedTensor& paged = ranks_[0].cache->layer(layer)->paged[tensor];
  std::vector<float> values(static_cast<size_t>(s.num_computed) * paged.shape.num_heads * paged.shape.dim);
  ranks_[0].backend->ReadState(paged, s.pages.data(), s.num_computed, values.data());
  return values;
}

}  // namespace sessa
